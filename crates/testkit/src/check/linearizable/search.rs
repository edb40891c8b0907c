//! The search itself.

use std::collections::BTreeSet;

use super::model::{Part, State};

/// What a search found.
pub(super) enum Outcome {
    Linearizable,
    OutOfSteps,
    /// The longest order cannot go on: `blocked` is over, and neither it nor
    /// any of the `pending` fits next.
    Stuck {
        blocked: usize,
        pending: Vec<usize>,
        linearized: usize,
        state: String,
    },
}

/// Begins and ends in order, linked both ways so that a placed operation can
/// be taken out and put back. Link 0 is the list's head.
struct Timeline {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    call: usize,
    /// For a beginning, the link of its end if it has one.
    end: Option<usize>,
    is_end: bool,
    previous: usize,
    next: Option<usize>,
}

/// Which calls were placed, without the part that is the same for all: every
/// call before the first word is placed, none after the last.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Placed {
    words_full: usize,
    words: Vec<u64>,
}

/// Searches until done or out of steps; a step is one attempt to place a call.
pub(super) fn search(part: &Part<'_>, steps_left: &mut u64) -> Outcome {
    let mut timeline = Timeline::of(part);
    let mut missing = part.calls.iter().filter(|call| call.operation.completed.is_some()).count();
    let mut state = part.initial.clone();
    let mut bits = vec![0_u64; part.calls.len().div_ceil(64)];
    let mut known: BTreeSet<(Placed, State)> = BTreeSet::new();
    // Beginnings placed so far, each with the state before.
    let mut path: Vec<(usize, State)> = Vec::new();
    let mut longest: Option<Outcome> = None;
    let mut longest_len = 0;
    let mut cursor = timeline.next(0);
    while missing > 0 {
        let Some((link, entry)) = cursor.and_then(|link| Some((link, timeline.get(link)?))) else {
            // An end stands before the end of the timeline while one is missing.
            return longest.unwrap_or(Outcome::Linearizable);
        };
        if !entry.is_end {
            if *steps_left == 0 {
                return Outcome::OutOfSteps;
            }
            *steps_left -= 1;
            let after = part.calls.get(entry.call).and_then(|call| call.apply(&state));
            flip(&mut bits, entry.call);
            if let Some(after) = after
                && known.insert((placed(&bits), after.clone()))
            {
                path.push((link, std::mem::replace(&mut state, after)));
                missing -= usize::from(entry.end.is_some());
                timeline.take_out(link, entry);
                cursor = timeline.next(0);
            } else {
                flip(&mut bits, entry.call);
                cursor = entry.next;
            }
            continue;
        }
        if longest.is_none() || path.len() > longest_len {
            longest_len = path.len();
            longest = Some(stuck(part, &timeline, link, path.len(), &state));
        }
        let Some((link, before)) = path.pop() else {
            return longest.unwrap_or(Outcome::Linearizable);
        };
        let Some(entry) = timeline.get(link) else { continue };
        state = before;
        flip(&mut bits, entry.call);
        missing += usize::from(entry.end.is_some());
        timeline.put_back(link, entry);
        cursor = entry.next;
    }
    Outcome::Linearizable
}

fn stuck(
    part: &Part<'_>,
    timeline: &Timeline,
    at: usize,
    linearized: usize,
    state: &State,
) -> Outcome {
    let id = |call: usize| part.calls.get(call).map(|call| call.operation.id);
    let blocked = timeline.get(at).and_then(|entry| id(entry.call)).unwrap_or_default();
    let mut pending = Vec::new();
    let mut cursor = timeline.next(0);
    while let Some(link) = cursor.filter(|link| *link != at)
        && let Some(entry) = timeline.get(link)
    {
        pending.extend(id(entry.call));
        cursor = entry.next;
    }
    Outcome::Stuck { blocked, pending, linearized, state: part.describe(state) }
}

fn flip(bits: &mut [u64], call: usize) {
    if let Some(word) = bits.get_mut(call / 64) {
        *word ^= 1 << (call % 64);
    }
}

fn placed(bits: &[u64]) -> Placed {
    let words_full = bits.iter().take_while(|word| **word == u64::MAX).count();
    let words_used = bits.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
    let words = bits.get(words_full..words_used).unwrap_or(&[]).to_vec();
    Placed { words_full, words }
}

impl Timeline {
    fn of(part: &Part<'_>) -> Self {
        let mut moments = Vec::new();
        for (number, call) in part.calls.iter().enumerate() {
            moments.push((call.operation.invoked.position, number, false));
            moments.extend(call.operation.completed.map(|end| (end.position, number, true)));
        }
        moments.sort_unstable();
        let head = Entry { call: usize::MAX, end: None, is_end: false, previous: 0, next: None };
        let mut entries = vec![head];
        let mut begins = vec![0; part.calls.len()];
        for (_, call, is_end) in moments {
            let link = entries.len();
            if let Some(last) = entries.last_mut() {
                last.next = Some(link);
            }
            entries.push(Entry { call, end: None, is_end, previous: link - 1, next: None });
            let Some(begin) = begins.get_mut(call) else { continue };
            if is_end {
                let begin = *begin;
                if let Some(begin) = entries.get_mut(begin) {
                    begin.end = Some(link);
                }
            } else {
                *begin = link;
            }
        }
        Self { entries }
    }

    fn get(&self, link: usize) -> Option<Entry> {
        self.entries.get(link).copied()
    }

    fn next(&self, link: usize) -> Option<usize> {
        self.get(link)?.next
    }

    fn take_out(&mut self, link: usize, entry: Entry) {
        self.unlink(link);
        entry.end.into_iter().for_each(|end| self.unlink(end));
    }

    /// In the reverse order of taking out, so that neighbours are there again.
    fn put_back(&mut self, link: usize, entry: Entry) {
        entry.end.into_iter().for_each(|end| self.relink(end));
        self.relink(link);
    }

    fn unlink(&mut self, link: usize) {
        let Some(entry) = self.get(link) else { return };
        self.join(entry.previous, entry.next);
        if let Some(next) = entry.next.and_then(|next| self.entries.get_mut(next)) {
            next.previous = entry.previous;
        }
    }

    fn relink(&mut self, link: usize) {
        let Some(entry) = self.get(link) else { return };
        self.join(entry.previous, Some(link));
        if let Some(next) = entry.next.and_then(|next| self.entries.get_mut(next)) {
            next.previous = link;
        }
    }

    fn join(&mut self, previous: usize, next: Option<usize>) {
        if let Some(previous) = self.entries.get_mut(previous) {
            previous.next = next;
        }
    }
}
