//! A group's replicated log as consensus presents it: committed entries, what
//! the present leader has proposed, and who leads in which term.

use std::collections::VecDeque;

use bytes::Bytes;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub term: u64,
    /// `None` is the first entry of a term.
    pub command: Option<Bytes>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GroupLog {
    /// The index before the first entry.
    base: u64,
    entries: Vec<Entry>,
    pub term: u64,
    /// The node that leads.
    pub leader: usize,
    pub proposed: VecDeque<Bytes>,
}

impl GroupLog {
    /// A log that starts behind `base` with a leader.
    pub fn new(base: u64, leader: usize) -> Self {
        let entries = vec![Entry { term: 1, command: None }];
        Self { base, entries, term: 1, leader, proposed: VecDeque::new() }
    }

    pub fn base(&self) -> u64 {
        self.base
    }

    /// The index of the last committed entry.
    pub fn committed(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The committed entry at an index.
    pub fn entry(&self, index: u64) -> &Entry {
        &self.entries[(index - self.base - 1) as usize]
    }

    /// The index of the present term's first entry.
    pub fn term_start(&self) -> u64 {
        let before = self.entries.iter().take_while(|entry| entry.term < self.term).count();
        self.base + before as u64 + 1
    }

    /// Takes a proposal from a node that believes to lead in `term`; false
    /// when it does not any more, and the proposal is lost.
    pub fn propose(&mut self, node: usize, term: u64, command: Bytes) -> bool {
        let leads = self.leader == node && self.term == term;
        if leads {
            self.proposed.push_back(command);
        }
        leads
    }

    /// Commits the oldest proposal.
    pub fn commit(&mut self) -> bool {
        let Some(command) = self.proposed.pop_front() else { return false };
        self.entries.push(Entry { term: self.term, command: Some(command) });
        true
    }

    /// A new term with this leader. Of what was proposed and not committed,
    /// the first `kept` survive; the rest is lost.
    pub fn elect(&mut self, leader: usize, kept: usize) {
        for _ in 0..kept {
            self.commit();
        }
        self.proposed.clear();
        self.term += 1;
        self.leader = leader;
        self.entries.push(Entry { term: self.term, command: None });
    }
}
