//! The oracle: where the system itself says in which order it executed its
//! commands, judging is replaying. A model executes them in that order on one
//! thread, and everything that anyone saw is held against it.
//!
//! [`replay`] walks the order once. At each command it compares the model's
//! reply with the replies that clients got, and at each position that somebody
//! reported a state for, the model's digest with theirs. Real time it checks on
//! the way: an order contradicts real time exactly if some command was over
//! before one that stands earlier in the order was sent. So it suffices to
//! remember, of all commands passed, the one that was sent last: a command
//! whose end lies before that moment is one too late in the order. Finding the
//! calls of each command makes the whole O(n log n); memory is that of the ids.
//! Each command that stands too late is named with one that it should have
//! preceded, so that no contradiction goes unseen.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt::{Debug, Display};

use super::verdict::Findings;
use super::{AnomalyKind, Verdict};

/// What the commands are executed on: small, on one thread, and written without
/// a look at the system that it judges.
pub trait Model {
    /// What is executed.
    type Command: Debug;
    /// What a client is told.
    type Reply: Debug + PartialEq;

    /// Executes a command.
    fn apply(&mut self, command: &Self::Command) -> Self::Reply;

    /// A digest of the state of a part, such as a shard. A model of one part
    /// need not look at the number.
    fn digest(&self, part: u64) -> u64;
}

/// A client's call. A command that was retried under its id has several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call<Id, Reply> {
    /// The command that was asked for.
    pub id: Id,
    /// When it was sent, in the history's moments.
    pub invoked: u64,
    /// What became of it.
    pub end: End<Reply>,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End<Reply> {
    /// With a reply, which must be the model's.
    Replied {
        /// When.
        at: u64,
        /// What the client was told.
        reply: Reply,
    },
    /// With the word that the command was executed, and no more.
    Acknowledged {
        /// When.
        at: u64,
    },
    /// The call did not make the command be executed and never will.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A state that somebody reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness<Who> {
    /// How many commands of the order it had executed.
    pub position: usize,
    /// Whose state.
    pub who: Who,
    /// Of which part.
    pub part: u64,
    /// The state's digest.
    pub digest: u64,
}

/// Replays `order` on `model`, which is in its final state afterwards.
///
/// Reported are a reply that differs from the model's, an order that real time
/// contradicts, an acknowledged command that is missing in the order, one that
/// is in it twice (the model executes it once), one in it of which every call
/// was refused, and the first digest of each witness that differs from the
/// model's. The numbers of an anomaly's operations are places in `calls`.
///
/// A command without a call is executed and constrains nothing: it may be the
/// system's own. A call of unknown outcome may be in the order or not, but not
/// before a command that was over when it was sent.
#[must_use]
pub fn replay<M, C, Id, Who>(
    model: &mut M,
    order: impl IntoIterator<Item = (Id, C)>,
    calls: &[Call<Id, M::Reply>],
    witnesses: &[Witness<Who>],
) -> Verdict
where
    M: Model,
    C: Borrow<M::Command>,
    Id: Ord + Clone + Debug,
    Who: Ord + Display,
{
    let mut findings = Findings::default();
    let mut asked = gather(calls);
    let mut placed: BTreeMap<Id, usize> = BTreeMap::new();
    let mut reports = Reports::of(witnesses);
    let mut latest: Option<Sent<Id>> = None;
    let mut length = 0;
    for (position, (id, command)) in order.into_iter().enumerate() {
        length = position + 1;
        reports.compare(position, model, &mut findings);
        if let Some(first) = placed.get(&id) {
            let what = format!("{id:?} is executed at {first} and again at {position}");
            let calls = asked.get(&id).map(|asked| asked.calls.clone()).unwrap_or_default();
            findings.add_told(AnomalyKind::RepeatedCommand, what, calls);
            continue;
        }
        placed.insert(id.clone(), position);
        let command = command.borrow();
        let reply = model.apply(command);
        let Some(asked) = asked.get_mut(&id) else { continue };
        asked.is_placed = true;
        let executed = Executed { id: &id, position, command, reply };
        executed.compare(asked, calls, &mut findings);
        if let (Some(over), Some(late)) = (asked.over, &latest)
            && over < late.at
        {
            let what = format!(
                "{id:?} was over at {over}, before {:?} was sent at {}, but is executed at \
                 {position}, after the other at {}",
                late.id, late.at, late.position
            );
            let shown = asked.calls.iter().copied().chain([late.call]).collect();
            findings.add_told(AnomalyKind::OrderAgainstRealTime, what, shown);
        }
        if latest.as_ref().is_none_or(|late| late.at < asked.invoked) {
            let call = asked.first;
            latest = Some(Sent { at: asked.invoked, id, position, call });
        }
    }
    reports.compare(length, model, &mut findings);
    reports.refuse_beyond(length, &mut findings);
    for (id, asked) in asked.iter().filter(|(_, asked)| asked.over.is_some() && !asked.is_placed) {
        let what = format!("{id:?} was acknowledged, but is nowhere in the order");
        findings.add_told(AnomalyKind::LostCommand, what, asked.calls.clone());
    }
    findings.verdict()
}

/// What clients know of a command, all its calls together.
struct Asked {
    /// When it was first sent, and by which call.
    invoked: u64,
    first: usize,
    /// When it was first known to be executed.
    over: Option<u64>,
    calls: Vec<usize>,
    may_happen: bool,
    is_placed: bool,
}

fn gather<Id: Ord + Clone, Reply>(calls: &[Call<Id, Reply>]) -> BTreeMap<Id, Asked> {
    let mut asked: BTreeMap<Id, Asked> = BTreeMap::new();
    for (place, call) in calls.iter().enumerate() {
        let known = asked.entry(call.id.clone()).or_insert_with(|| Asked {
            invoked: call.invoked,
            first: place,
            over: None,
            calls: Vec::new(),
            may_happen: false,
            is_placed: false,
        });
        known.calls.push(place);
        if call.invoked < known.invoked {
            (known.invoked, known.first) = (call.invoked, place);
        }
        let over = match &call.end {
            End::Replied { at, .. } | End::Acknowledged { at } => Some(*at),
            End::Refused | End::Unknown => None,
        };
        known.over = match (known.over, over) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        known.may_happen |= !matches!(call.end, End::Refused);
    }
    asked
}

/// Of the commands passed, the one that was sent last.
struct Sent<Id> {
    at: u64,
    id: Id,
    position: usize,
    call: usize,
}

/// A command and what the model made of it.
struct Executed<'a, Id, Command, Reply> {
    id: &'a Id,
    position: usize,
    command: &'a Command,
    reply: Reply,
}

impl<Id: Debug, Command: Debug, Reply: Debug + PartialEq> Executed<'_, Id, Command, Reply> {
    fn compare(&self, asked: &Asked, calls: &[Call<Id, Reply>], findings: &mut Findings) {
        let Self { id, position, command, reply } = self;
        if !asked.may_happen {
            let what = format!("{id:?} was refused, but is executed at {position}: {command:?}");
            findings.add_told(AnomalyKind::RefusedCommand, what, asked.calls.clone());
        }
        for place in &asked.calls {
            let end = calls.get(*place).map(|call| &call.end);
            let Some(End::Replied { reply: told, .. }) = end else { continue };
            if told != reply {
                let what = format!(
                    "{id:?} was told {told:?}; executed at {position} the model says {reply:?} to \
                     {command:?}"
                );
                findings.add_told(AnomalyKind::WrongReply, what, vec![*place]);
            }
        }
    }
}

/// The witnesses by position.
struct Reports<'a, Who> {
    waiting: std::iter::Peekable<std::vec::IntoIter<&'a Witness<Who>>>,
    /// Whose state was found to differ; it will hardly come back.
    diverged: BTreeMap<(&'a Who, u64), usize>,
}

impl<'a, Who: Ord + Display> Reports<'a, Who> {
    fn of(witnesses: &'a [Witness<Who>]) -> Self {
        let mut waiting: Vec<_> = witnesses.iter().collect();
        waiting.sort_by_key(|witness| witness.position);
        Self { waiting: waiting.into_iter().peekable(), diverged: BTreeMap::new() }
    }

    fn compare<M: Model>(&mut self, position: usize, model: &M, findings: &mut Findings) {
        while let Some(witness) = self.waiting.next_if(|next| next.position <= position) {
            let Witness { who, part, digest, .. } = witness;
            if self.diverged.contains_key(&(who, *part)) {
                continue;
            }
            let expected = model.digest(*part);
            if expected != *digest {
                self.diverged.insert((who, *part), position);
                let what = format!(
                    "after {position} commands the digest of part {part} is {digest:#018x} at \
                     {who}, and the model's is {expected:#018x}"
                );
                findings.add_told(AnomalyKind::DivergedState, what, Vec::new());
            }
        }
    }

    fn refuse_beyond(&mut self, length: usize, findings: &mut Findings) {
        for witness in self.waiting.by_ref() {
            let what = format!(
                "{} reports a state after {} commands; the order has only {length}",
                witness.who, witness.position
            );
            findings.add_told(AnomalyKind::DivergedState, what, Vec::new());
        }
    }
}
