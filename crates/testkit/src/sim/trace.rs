//! What a simulation did, line by line.

use std::fmt::{self, Display};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;

/// So many lines are kept for a reader. The hash goes on beyond.
pub const TRACE_LINES_MAX: usize = 2_000_000;

/// FNV-1a, 64 bits: an offset basis and a prime fixed by its authors.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// An append-only list of lines, each with its virtual time, and a hash over
/// all of them. Two runs of a seed must have equal traces; put nothing in that
/// comes from outside the seed (wall time, addresses, task ids).
#[derive(Clone)]
pub struct Trace {
    begun: Instant,
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    kept: Vec<String>,
    count: u64,
    hash: u64,
    is_frozen: bool,
}

impl Trace {
    /// An empty trace; times count from `begun`.
    #[must_use]
    pub fn new(begun: Instant) -> Self {
        let lines = Lines { kept: Vec::new(), count: 0, hash: FNV_BASIS, is_frozen: false };
        Self { begun, lines: Arc::new(Mutex::new(lines)) }
    }

    /// Appends a line.
    pub fn record(&self, what: impl Display) {
        let line = format!("{:>9} {what}", self.begun.elapsed().as_millis());
        let mut lines = self.lines.lock();
        if lines.is_frozen {
            return;
        }
        for byte in line.bytes().chain(std::iter::once(b'\n')) {
            lines.hash = (lines.hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        lines.count += 1;
        if lines.kept.len() < TRACE_LINES_MAX {
            lines.kept.push(line);
        }
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
        self.lines.lock().kept.clone()
    }

    /// The first line (counted from zero) in which two traces differ, with
    /// both versions; `None` if they are equal.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(usize, String, String)> {
        let (ours, theirs) = (self.lines(), other.lines());
        let line = |lines: &[String], at: usize| {
            lines.get(at).cloned().unwrap_or_else(|| "(no line)".to_owned())
        };
        let at = (0..ours.len().max(theirs.len())).find(|at| ours.get(*at) != theirs.get(*at));
        match at {
            Some(at) => Some((at, line(&ours, at), line(&theirs, at))),
            None if self.hash() == other.hash() => None,
            None => Some((ours.len(), "(beyond what is kept)".to_owned(), String::new())),
        }
    }

    /// Ignores what comes from now on: a runtime that is torn down drops its
    /// tasks in an order that no seed decides.
    pub(super) fn freeze(&self) {
        self.lines.lock().is_frozen = true;
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Trace({} lines, {:016x})", self.count(), self.hash())
    }
}
