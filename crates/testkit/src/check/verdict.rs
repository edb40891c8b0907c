//! What a checker says.

use std::fmt;

use crate::TestkitError;
use crate::history::Operation;

/// A report lists so many anomalies; one that found more says so.
pub const ANOMALIES_MAX: usize = 64;

/// A checker's judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// No anomaly.
    Valid,
    /// At least one anomaly.
    Invalid(Vec<Anomaly>),
    /// The checker could not tell, and why.
    Undecided(String),
}

/// One thing that must not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    /// What it is called.
    pub kind: AnomalyKind,
    /// What happened, in sentences, with the operations it is about.
    pub explanation: String,
    /// The ids of those operations.
    pub operations: Vec<usize>,
}

/// The names of anomalies. Where there is one, Adya's name (1999) is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AnomalyKind {
    /// A transaction contradicts its own reads and writes.
    Internal,
    /// G1a: a read saw what a failed operation wrote.
    AbortedRead,
    /// G1b: a read saw a state inside another transaction.
    IntermediateRead,
    /// A read saw what nobody wrote.
    PhantomElement,
    /// A read saw an element twice.
    DuplicateElement,
    /// An acknowledged append is missing from a read that began after it.
    LostAppend,
    /// Two reads of a list do not agree on its order.
    IncompatibleOrder,
    /// Dependencies between transactions run in a circle.
    Cycle(CycleClass, Through),
    /// A read of all accounts does not add up to the bank's money.
    WrongTotal,
    /// An account was overdrawn.
    NegativeBalance,
    /// No order of the operations explains what they returned.
    NotLinearizable,
    /// An acknowledged write is missing at the end.
    LostWrite,
    /// What stands there at the end was never written.
    UnexpectedValue,
    /// More increments took effect than were asked for.
    DoubleExecution,
    /// Fewer increments took effect than were acknowledged.
    LostExecution,
    /// A value that only rises was seen lower than before.
    WentBack,
    /// Two readers saw two writes in opposite orders.
    LongFork,
    /// A reply that the model does not give at that place of the order.
    WrongReply,
    /// The order puts a command before one that was over when it was sent.
    OrderAgainstRealTime,
    /// An acknowledged command is not in the order.
    LostCommand,
    /// A command is in the order twice.
    RepeatedCommand,
    /// A command that was refused is in the order.
    RefusedCommand,
    /// A state is not the one that the order leads to.
    DivergedState,
}

/// Adya's classes of cycles, from worst to mildest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CycleClass {
    /// Of writes over writes only.
    G0,
    /// Of writes over writes and reads of writes.
    G1c,
    /// With exactly one read of what was later overwritten.
    GSingle,
    /// With several of those.
    G2,
}

/// Which orders besides the data's a cycle needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Through {
    /// None: not even serializable.
    Data,
    /// A process's own order.
    Process,
    /// Real time: serializable, but not strictly.
    RealTime,
}

impl Verdict {
    /// Whether the history is known to be good.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        *self == Self::Valid
    }

    /// Whether the history is known to be bad.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }

    /// The anomalies found.
    #[must_use]
    pub fn anomalies(&self) -> &[Anomaly] {
        match self {
            Self::Invalid(anomalies) => anomalies,
            Self::Valid | Self::Undecided(_) => &[],
        }
    }

    /// Whether an anomaly of this kind was found.
    #[must_use]
    pub fn has(&self, kind: AnomalyKind) -> bool {
        self.anomalies().iter().any(|anomaly| anomaly.kind == kind)
    }

    /// Nothing for a good history.
    ///
    /// # Errors
    /// `Check` with the whole explanation for a bad or undecided one.
    pub fn into_result(self) -> Result<(), TestkitError> {
        if self.is_valid() { Ok(()) } else { Err(TestkitError::Check(self.to_string())) }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid => f.write_str("valid"),
            Self::Undecided(reason) => write!(f, "undecided: {reason}"),
            Self::Invalid(anomalies) => {
                match anomalies.len() {
                    1 => f.write_str("invalid: 1 anomaly")?,
                    ANOMALIES_MAX => write!(f, "invalid: {ANOMALIES_MAX} or more anomalies")?,
                    count => write!(f, "invalid: {count} anomalies")?,
                }
                anomalies.iter().try_for_each(|anomaly| write!(f, "\n{anomaly}"))
            }
        }
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.explanation)
    }
}

impl fmt::Display for AnomalyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Internal => "internal inconsistency",
            Self::AbortedRead => "G1a (aborted read)",
            Self::IntermediateRead => "G1b (intermediate read)",
            Self::PhantomElement => "phantom element",
            Self::DuplicateElement => "duplicate element",
            Self::LostAppend => "lost append",
            Self::IncompatibleOrder => "incompatible order",
            Self::Cycle(class, through) => return write!(f, "{class}{through}"),
            Self::WrongTotal => "wrong total",
            Self::NegativeBalance => "negative balance",
            Self::NotLinearizable => "not linearizable",
            Self::LostWrite => "lost write",
            Self::UnexpectedValue => "unexpected value",
            Self::DoubleExecution => "double execution",
            Self::LostExecution => "lost execution",
            Self::WentBack => "value went back",
            Self::LongFork => "long fork",
            Self::WrongReply => "wrong reply",
            Self::OrderAgainstRealTime => "order against real time",
            Self::LostCommand => "lost command",
            Self::RepeatedCommand => "repeated command",
            Self::RefusedCommand => "refused command took effect",
            Self::DivergedState => "diverged state",
        })
    }
}

impl fmt::Display for CycleClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::G0 => "G0 (write cycle)",
            Self::G1c => "G1c (circular information flow)",
            Self::GSingle => "G-single (read skew)",
            Self::G2 => "G2 (anti-dependency cycle)",
        })
    }
}

impl fmt::Display for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "",
            Self::Process => " with process order",
            Self::RealTime => " with real time",
        })
    }
}

/// Collects anomalies up to the limit.
#[derive(Debug, Default)]
pub(super) struct Findings(Vec<Anomaly>);

impl Findings {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= ANOMALIES_MAX
    }

    /// Adds one with what happened and the operations that show it.
    pub(super) fn add<'a>(
        &mut self,
        kind: AnomalyKind,
        what: impl fmt::Display,
        shown: impl IntoIterator<Item = &'a Operation>,
    ) {
        if self.is_full() {
            return;
        }
        let mut explanation = what.to_string();
        let mut operations = Vec::new();
        for operation in shown {
            if !operations.contains(&operation.id) {
                explanation.push_str(&format!("\n    {operation}"));
                operations.push(operation.id);
            }
        }
        self.0.push(Anomaly { kind, explanation, operations });
    }

    /// Adds one whose explanation says everything.
    pub(super) fn add_told(&mut self, kind: AnomalyKind, told: String, operations: Vec<usize>) {
        if !self.is_full() {
            self.0.push(Anomaly { kind, explanation: told, operations });
        }
    }

    pub(super) fn verdict(self) -> Verdict {
        if self.0.is_empty() { Verdict::Valid } else { Verdict::Invalid(self.0) }
    }
}
