//! What a simulation did, line by line.

use std::collections::VecDeque;
use std::fmt::{self, Display, Write as _};
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_types::NodeId;
use tokio::time::Instant;

/// So many lines are kept for a reader unless told otherwise. The hash goes on
/// beyond.
pub const TRACE_LINES_MAX: usize = 2_000_000;

/// FNV-1a, 64 bits: an offset basis and a prime fixed by its authors.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Which lines a trace keeps for a reader. Its hash and its count are over all
/// of them in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The first so many: where two runs part is seen if it is early.
    First(usize),
    /// The last so many: what led to the end.
    Last(usize),
    /// None: the hash is all that is wanted.
    Nothing,
}

/// An append-only list of lines, each with its virtual time, and a hash over
/// all of them. Two runs of a seed must have equal traces; put nothing in that
/// comes from outside the seed (wall time, addresses, task ids).
#[derive(Clone)]
pub struct Trace {
    begun: Instant,
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    keep: Keep,
    kept: VecDeque<String>,
    /// The position among all lines of the first one kept. The kept ones
    /// follow each other without a gap.
    first: u64,
    count: u64,
    hash: u64,
    is_frozen: bool,
    /// A line that was dropped, for its memory.
    spare: String,
}

impl Trace {
    /// An empty trace that keeps the first [`TRACE_LINES_MAX`] lines; times
    /// count from `begun`.
    #[must_use]
    pub fn new(begun: Instant) -> Self {
        let lines = Lines {
            keep: Keep::First(TRACE_LINES_MAX),
            kept: VecDeque::new(),
            first: 0,
            count: 0,
            hash: FNV_BASIS,
            is_frozen: false,
            spare: String::new(),
        };
        Self { begun, lines: Arc::new(Mutex::new(lines)) }
    }

    /// Keeps other lines from now on. Of those kept so far as many stay as
    /// have room.
    pub fn set_keep(&self, keep: Keep) {
        self.lines.lock().set_keep(keep);
    }

    /// Appends a line.
    pub fn record(&self, what: impl Display) {
        let mut line = std::mem::take(&mut self.lines.lock().spare);
        line.clear();
        // Not under the lock: `what` may come to look at the trace. Writing to
        // a string fails only where its own formatting does.
        let _ = write!(line, "{:>9} {what}", self.begun.elapsed().as_millis());
        self.lines.lock().append(line);
    }

    /// The hash over every line so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.lines.lock().hash
    }

    /// How many lines were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.lines.lock().count
    }

    /// The kept lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().kept.iter().cloned().collect()
    }

    /// Of the kept lines the last `lines_max` that name any of `nodes`.
    #[must_use]
    pub fn excerpt(&self, nodes: &[NodeId], lines_max: usize) -> Vec<String> {
        let names: Vec<String> = nodes.iter().map(NodeId::to_string).collect();
        let is_about = |line: &&String| {
            let mut words = line.split(|letter: char| !letter.is_alphanumeric());
            words.any(|word| names.iter().any(|name| name == word))
        };
        let lines = self.lines.lock();
        let mut found: Vec<String> =
            lines.kept.iter().rev().filter(is_about).take(lines_max).cloned().collect();
        found.reverse();
        found
    }

    /// The first line (its position among all lines, counted from zero) in
    /// which two traces are seen to differ, with both versions; `None` if they
    /// are equal. Only lines that both have kept can be compared.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(usize, String, String)> {
        if Arc::ptr_eq(&self.lines, &other.lines) {
            return None;
        }
        let (ours, theirs) = (self.lines.lock(), other.lines.lock());
        let begin = ours.first.max(theirs.first);
        let end = ours.end().max(theirs.end());
        let at = (begin..end).find(|at| ours.get(*at) != theirs.get(*at));
        let line =
            |lines: &Lines, at| lines.get(at).map_or_else(|| "(no line)".to_owned(), str::to_owned);
        let position = |at| usize::try_from(at).unwrap_or(usize::MAX);
        match at {
            Some(at) => Some((position(at), line(&ours, at), line(&theirs, at))),
            None if ours.hash == theirs.hash => None,
            None => Some((position(end), "(not among what is kept)".to_owned(), String::new())),
        }
    }

    /// Ignores what comes from now on: a runtime that is torn down drops its
    /// tasks in an order that no seed decides.
    pub(super) fn freeze(&self) {
        self.lines.lock().is_frozen = true;
    }
}

impl Lines {
    fn append(&mut self, line: String) {
        if self.is_frozen {
            return;
        }
        for byte in line.bytes().chain(std::iter::once(b'\n')) {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        if self.kept.is_empty() {
            self.first = self.count;
        }
        let follows = self.end() == self.count;
        self.count += 1;
        match self.keep {
            Keep::First(lines_max) if follows && self.kept.len() < lines_max => {
                self.kept.push_back(line);
            }
            Keep::Last(lines_max) if lines_max > 0 => {
                if self.kept.len() >= lines_max {
                    self.spare = self.kept.pop_front().unwrap_or_default();
                    self.first += 1;
                }
                self.kept.push_back(line);
            }
            Keep::First(_) | Keep::Last(_) | Keep::Nothing => self.spare = line,
        }
    }

    fn set_keep(&mut self, keep: Keep) {
        match keep {
            Keep::First(lines_max) => self.kept.truncate(lines_max),
            // What is kept is not the end of the trace, and cannot be added to.
            Keep::Last(_) if self.end() != self.count => self.kept.clear(),
            Keep::Last(lines_max) => {
                let surplus = self.kept.len().saturating_sub(lines_max);
                self.kept.drain(..surplus);
                self.first += surplus as u64;
            }
            Keep::Nothing => self.kept.clear(),
        }
        self.keep = keep;
    }

    /// The position after the last line kept.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn get(&self, at: u64) -> Option<&str> {
        let at = usize::try_from(at.checked_sub(self.first)?).ok()?;
        self.kept.get(at).map(String::as_str)
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} lines, {:016x})", self.count(), self.hash())
    }
}
