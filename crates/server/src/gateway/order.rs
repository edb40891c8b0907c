//! Which of a connection's commands may run.
//!
//! Commands that share no key may run at the same time. Commands that share
//! one run in the order in which they came, reads among them too: a client
//! that reads a key twice must not see the later value first. A command over
//! all keys is ordered against every other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use quorate_calvin::Footprint;
use quorate_types::Blob;

/// A command's place among all of its connection.
pub(super) type Ticket = u64;

/// What a command is ordered against.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// Commands that share one of the keys. No key twice.
    Keys(Vec<Blob>),
    /// Every command.
    Everything,
}

impl Scope {
    pub(super) fn of(footprint: &Footprint) -> Self {
        if !footprint.ranges.is_empty() {
            return Self::Everything;
        }
        match (&footprint.reads[..], &footprint.writes[..]) {
            ([key], []) | ([], [key]) => Self::Keys(vec![key.clone()]),
            ([read], [write]) if read == write => Self::Keys(vec![read.clone()]),
            (reads, writes) => {
                let keys: BTreeSet<&Blob> = reads.iter().chain(writes).collect();
                Self::Keys(keys.into_iter().cloned().collect())
            }
        }
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// The unfinished commands of each key, in order; the first one may run.
    queues: BTreeMap<Blob, VecDeque<Ticket>>,
    /// Commands over keys that have not finished.
    enrolled: BTreeMap<Ticket, Enrolled>,
    /// The command over everything that runs.
    exclusive: Option<Ticket>,
    /// A command over everything that waits, and all that came after it.
    held: VecDeque<(Ticket, Scope)>,
    /// What may run and was not taken yet.
    runnable: BTreeSet<Ticket>,
}

#[derive(Debug)]
struct Enrolled {
    keys: Vec<Blob>,
    /// In how many of the keys' queues others stand before it.
    blocked: usize,
}

impl Order {
    /// Adds a command behind all others.
    pub(super) fn add(&mut self, ticket: Ticket, scope: Scope) {
        self.held.push_back((ticket, scope));
        self.admit();
    }

    /// The oldest command that may run.
    pub(super) fn first_runnable(&self) -> Option<Ticket> {
        self.runnable.first().copied()
    }

    /// Marks a command as running.
    pub(super) fn take(&mut self, ticket: Ticket) {
        self.runnable.remove(&ticket);
    }

    /// Lets those that waited for a command go on.
    pub(super) fn finish(&mut self, ticket: Ticket) {
        if self.exclusive == Some(ticket) {
            self.exclusive = None;
        }
        if let Some(enrolled) = self.enrolled.remove(&ticket) {
            enrolled.keys.iter().for_each(|key| self.leave(key));
        }
        self.admit();
    }

    fn leave(&mut self, key: &Blob) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        queue.pop_front();
        let Some(&next) = queue.front() else {
            self.queues.remove(key);
            return;
        };
        if let Some(enrolled) = self.enrolled.get_mut(&next) {
            enrolled.blocked -= 1;
            if enrolled.blocked == 0 {
                self.runnable.insert(next);
            }
        }
    }

    fn admit(&mut self) {
        while self.exclusive.is_none() {
            match self.held.pop_front() {
                None => return,
                Some((ticket, Scope::Keys(keys))) => self.enroll(ticket, keys),
                Some((ticket, Scope::Everything)) if self.enrolled.is_empty() => {
                    self.exclusive = Some(ticket);
                    self.runnable.insert(ticket);
                }
                Some(waiting) => {
                    self.held.push_front(waiting);
                    return;
                }
            }
        }
    }

    fn enroll(&mut self, ticket: Ticket, keys: Vec<Blob>) {
        let mut blocked = 0;
        for key in &keys {
            let queue = self.queues.entry(key.clone()).or_default();
            blocked += usize::from(!queue.is_empty());
            queue.push_back(ticket);
        }
        if blocked == 0 {
            self.runnable.insert(ticket);
        }
        self.enrolled.insert(ticket, Enrolled { keys, blocked });
    }
}

#[cfg(test)]
mod tests;
