//! The words of a history.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A logical thread of a client: it has at most one operation in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {}", self.0)
    }
}

/// What an operation touches. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Key {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<u64> for Key {
    fn from(number: u64) -> Self {
        Self(number.to_string().into())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// So many of a list's elements are shown to a reader.
const LIST_SHOWN_MAX: usize = 16;

/// What stands at a key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// Nothing. For a list the same as the empty list, for a counter as zero.
    Nil,
    /// A register's or counter's value.
    Int(i64),
    /// A list's elements, oldest first.
    List(Vec<i64>),
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Int(value) => write!(f, "{value}"),
            // Of a long list its end matters.
            Self::List(values) => {
                let hidden = values.len().saturating_sub(LIST_SHOWN_MAX);
                let shown: Vec<_> = values.iter().skip(hidden).map(i64::to_string).collect();
                let dots = if hidden > 0 { format!("({hidden} more) ") } else { String::new() };
                write!(f, "[{dots}{}]", shown.join(" "))
            }
        }
    }
}

/// One step of a transaction. The steps of one operation happen together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MicroOp {
    /// Appends an element to a list.
    Append {
        /// The list.
        key: Key,
        /// The element; unique per list, or order cannot be inferred.
        value: i64,
    },
    /// Reads a key.
    Read {
        /// The key.
        key: Key,
        /// What was seen; `None` while nobody knows.
        seen: Option<Datum>,
    },
    /// Sets a register.
    Write {
        /// The register.
        key: Key,
        /// Its new value.
        value: i64,
    },
    /// Sets a register whose value is as expected. A comparison that did not
    /// hold is an operation that failed, or [`MicroOp::Differs`] where the
    /// refusal itself is an answer to be judged.
    CompareAndSet {
        /// The register.
        key: Key,
        /// The value it must have.
        expected: i64,
        /// Its new value.
        new: i64,
    },
    /// Compared a register with a value and found another there.
    Differs {
        /// The register.
        key: Key,
        /// The value it did not have.
        unexpected: i64,
    },
    /// Adds to a counter.
    Add {
        /// The counter.
        key: Key,
        /// How much.
        delta: i64,
        /// The id that retries of this increment share.
        request: Option<Key>,
    },
    /// Moves an amount between two accounts.
    Transfer {
        /// The account that pays.
        from: Key,
        /// The account that is paid.
        to: Key,
        /// How much.
        amount: i64,
    },
}

impl MicroOp {
    /// Appends `value` to the list `key`.
    pub fn append(key: impl Into<Key>, value: i64) -> Self {
        Self::Append { key: key.into(), value }
    }

    /// Asks for `key`.
    pub fn read(key: impl Into<Key>) -> Self {
        Self::Read { key: key.into(), seen: None }
    }

    /// Asked for `key` and was shown `seen`.
    pub fn saw(key: impl Into<Key>, seen: Datum) -> Self {
        Self::Read { key: key.into(), seen: Some(seen) }
    }

    /// Asked for the list `key` and was shown `elements`.
    pub fn saw_list(key: impl Into<Key>, elements: impl Into<Vec<i64>>) -> Self {
        Self::saw(key, Datum::List(elements.into()))
    }

    /// Asked for the register or counter `key` and was shown `value`.
    pub fn saw_int(key: impl Into<Key>, value: i64) -> Self {
        Self::saw(key, Datum::Int(value))
    }

    /// Sets the register `key` to `value`.
    pub fn write(key: impl Into<Key>, value: i64) -> Self {
        Self::Write { key: key.into(), value }
    }

    /// Sets the register `key` from `expected` to `new`.
    pub fn compare_and_set(key: impl Into<Key>, expected: i64, new: i64) -> Self {
        Self::CompareAndSet { key: key.into(), expected, new }
    }

    /// Found something else than `unexpected` in the register `key`.
    pub fn differs(key: impl Into<Key>, unexpected: i64) -> Self {
        Self::Differs { key: key.into(), unexpected }
    }

    /// Adds `delta` to the counter `key`.
    pub fn add(key: impl Into<Key>, delta: i64) -> Self {
        Self::Add { key: key.into(), delta, request: None }
    }

    /// Adds `delta` to the counter `key` under a request id.
    pub fn add_once(key: impl Into<Key>, delta: i64, request: impl Into<Key>) -> Self {
        Self::Add { key: key.into(), delta, request: Some(request.into()) }
    }

    /// Moves `amount` from one account to another.
    pub fn transfer(from: impl Into<Key>, to: impl Into<Key>, amount: i64) -> Self {
        Self::Transfer { from: from.into(), to: to.into(), amount }
    }

    /// The keys it touches: one, or two for a transfer.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let (first, second) = match self {
            Self::Append { key, .. }
            | Self::Read { key, .. }
            | Self::Write { key, .. }
            | Self::CompareAndSet { key, .. }
            | Self::Differs { key, .. }
            | Self::Add { key, .. } => (key, None),
            Self::Transfer { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    /// Whether it can change nothing.
    #[must_use]
    pub fn is_read(&self) -> bool {
        matches!(self, Self::Read { .. } | Self::Differs { .. })
    }
}

impl fmt::Display for MicroOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Append { key, value } => write!(f, "append {key} {value}"),
            Self::Read { key, seen: None } => write!(f, "r {key} ?"),
            Self::Read { key, seen: Some(seen) } => write!(f, "r {key} {seen}"),
            Self::Write { key, value } => write!(f, "w {key} {value}"),
            Self::CompareAndSet { key, expected, new } => write!(f, "cas {key} {expected} {new}"),
            Self::Differs { key, unexpected } => write!(f, "ne {key} {unexpected}"),
            Self::Add { key, delta, request: None } => write!(f, "add {key} {delta}"),
            Self::Add { key, delta, request: Some(id) } => write!(f, "add {key} {delta} ({id})"),
            Self::Transfer { from, to, amount } => write!(f, "transfer {from} {to} {amount}"),
        }
    }
}

/// What an event says about its operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EventKind {
    /// It was sent.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen and never will.
    Fail,
    /// Nobody knows whether it happened or still will.
    Info,
}

/// One line of a history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it says.
    pub kind: EventKind,
    /// Whose operation it is about.
    pub process: ProcessId,
    /// When, by the recording machine's monotonic clock.
    pub time: Duration,
    /// What sort of operation, for the reader.
    pub f: Cow<'static, str>,
    /// The steps; in an `Ok` with all that was read.
    pub txn: Vec<MicroOp>,
    /// Why it failed or is unknown.
    pub error: Option<String>,
}
