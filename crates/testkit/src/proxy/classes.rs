//! Who calls, what is in force for whom, and what was done to whom.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::watch;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Behaviour;

/// Tells a client's class from the first bytes it sends; `None` while they do
/// not tell.
pub type Classify = fn(&[u8]) -> Option<u64>;

/// Who has sent so much without being recognized has no class.
pub const CLASSIFY_BYTES_MAX: usize = 8 << 10;

/// How many classes a proxy keeps apart. Those beyond are counted, and treated,
/// like clients without a class.
pub const CLASSES_MAX: usize = 1024;

/// Who has not said who it is after so long has no class: as long as a node
/// gives a caller to introduce itself.
const CLASSIFY_WAIT: Duration = Duration::from_secs(5);

/// What is in force.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    /// For those whose class has no rule.
    pub(super) others: Behaviour,
    classes: BTreeMap<u64, Behaviour>,
    /// Connections made before the last increase are closed; so for a class.
    pub(super) closings: u64,
    class_closings: BTreeMap<u64, u64>,
}

impl Control {
    pub(super) fn behaviour(&self, class: Option<u64>) -> Behaviour {
        let rule = class.and_then(|class| self.classes.get(&class));
        rule.copied().unwrap_or(self.others)
    }

    pub(super) fn set_class(&mut self, class: u64, behaviour: Behaviour) {
        if self.classes.len() < CLASSES_MAX || self.classes.contains_key(&class) {
            self.classes.insert(class, behaviour);
        }
    }

    pub(super) fn heal(&mut self) {
        self.others = Behaviour::healthy();
        self.classes.clear();
    }

    pub(super) fn close_class(&mut self, class: u64) {
        if self.class_closings.len() < CLASSES_MAX || self.class_closings.contains_key(&class) {
            *self.class_closings.entry(class).or_default() += 1;
        }
    }

    fn closings(&self, class: Option<u64>) -> u64 {
        let of_class = class.and_then(|class| self.class_closings.get(&class));
        self.closings + of_class.copied().unwrap_or(0)
    }
}

/// What is in force for one connection.
#[derive(Clone)]
pub(super) struct View {
    changes: watch::Receiver<Arc<Control>>,
    class: Option<u64>,
    /// The closings before the connection was made.
    closings: u64,
}

impl View {
    pub(super) fn new(changes: watch::Receiver<Arc<Control>>, class: Option<u64>) -> Self {
        let closings = changes.borrow().closings(class);
        Self { changes, class, closings }
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        self.changes.borrow().behaviour(self.class)
    }

    /// Waits until the behaviour is acceptable; says what it is then, and
    /// whether it had to wait.
    ///
    /// # Errors
    /// When the proxy is gone.
    pub(super) async fn wait_for(
        &mut self,
        accept: impl Fn(&Behaviour) -> bool,
    ) -> io::Result<(Behaviour, bool)> {
        // Seen, so that the next pause is not cut short by it.
        let now = self.changes.borrow_and_update().behaviour(self.class);
        if accept(&now) {
            return Ok((now, false));
        }
        let class = self.class;
        let control = self.changes.wait_for(|control| accept(&control.behaviour(class))).await;
        let control = control.map_err(|_| io::ErrorKind::ConnectionReset)?;
        Ok((control.behaviour(class), true))
    }

    /// Waits for a time, or until anything changes.
    ///
    /// # Errors
    /// When the proxy is gone.
    pub(super) async fn pause(&mut self, pause: Duration) -> io::Result<()> {
        match timeout(pause, self.changes.changed()).await {
            Ok(Err(_)) => Err(io::ErrorKind::ConnectionReset.into()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    }

    /// Resolves when the connection is to be closed, or the proxy is gone.
    pub(super) async fn closed(&mut self) {
        let (class, closings) = (self.class, self.closings);
        // An error says that the proxy is gone.
        let _ = self.changes.wait_for(|control| control.closings(class) > closings).await;
    }
}

/// Reads a client's first bytes until they tell its class; they are still to be
/// forwarded.
///
/// # Errors
/// The stream's.
pub(super) async fn introduce(
    client: &mut TcpStream,
    classify: Classify,
) -> io::Result<(Option<u64>, Vec<u8>)> {
    let mut begun = Vec::new();
    let mut class = None;
    let recognize = async {
        while class.is_none() && begun.len() < CLASSIFY_BYTES_MAX {
            // Dropping the wait loses nothing: what was read is in `begun`.
            if client.read_buf(&mut begun).await? == 0 {
                break;
            }
            class = classify(&begun);
        }
        io::Result::Ok(())
    };
    match timeout(CLASSIFY_WAIT, recognize).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(())) | Err(_) => Ok((class, begun)),
    }
}

/// What a proxy has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Connections that reached the server.
    pub accepted: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that the proxy itself closed: on demand, or because they had
    /// lost bytes.
    pub closed: u64,
    /// Bytes that passed.
    pub passed_bytes: u64,
    /// Of these, bytes that were held back first: delayed, stalled, throttled.
    pub late_bytes: u64,
    /// Bytes that vanished.
    pub dropped_bytes: u64,
    /// Bits that were flipped.
    pub flipped_bits: u64,
    /// Connections that had a bit flipped.
    pub damaged: u64,
    /// Of these, connections that have ended.
    pub damaged_ended: u64,
}

impl Tally {
    /// What was done since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        self.with(earlier, u64::saturating_sub)
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    fn with(&self, other: &Self, by: fn(u64, u64) -> u64) -> Self {
        Self {
            accepted: by(self.accepted, other.accepted),
            refused: by(self.refused, other.refused),
            closed: by(self.closed, other.closed),
            passed_bytes: by(self.passed_bytes, other.passed_bytes),
            late_bytes: by(self.late_bytes, other.late_bytes),
            dropped_bytes: by(self.dropped_bytes, other.dropped_bytes),
            flipped_bits: by(self.flipped_bits, other.flipped_bits),
            damaged: by(self.damaged, other.damaged),
            damaged_ended: by(self.damaged_ended, other.damaged_ended),
        }
    }
}

/// What was done, by class.
#[derive(Debug, Clone, Default)]
pub(super) struct Tallies(Arc<Mutex<BTreeMap<Option<u64>, Tally>>>);

impl Tallies {
    pub(super) fn count(&self, class: Option<u64>, count: impl FnOnce(&mut Tally)) {
        let mut tallies = self.0.lock();
        let has_room = tallies.len() < CLASSES_MAX || tallies.contains_key(&class);
        count(tallies.entry(class.filter(|_| has_room)).or_default());
    }

    pub(super) fn of(&self, class: Option<u64>) -> Tally {
        self.0.lock().get(&class).copied().unwrap_or_default()
    }

    pub(super) fn sum(&self) -> Tally {
        self.0.lock().values().fold(Tally::default(), |sum, tally| sum.plus(tally))
    }
}

/// Keeps the account of one connection.
pub(super) struct Ledger {
    tallies: Tallies,
    class: Option<u64>,
    is_damaged: AtomicBool,
}

impl Ledger {
    pub(super) fn open(tallies: Tallies, class: Option<u64>) -> Self {
        tallies.count(class, |tally| tally.accepted += 1);
        Self { tallies, class, is_damaged: AtomicBool::new(false) }
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut Tally)) {
        self.tallies.count(self.class, count);
    }

    pub(super) fn flipped(&self, bits: u64) {
        let is_first = bits > 0 && !self.is_damaged.swap(true, Ordering::Relaxed);
        self.count(|tally| {
            tally.flipped_bits += bits;
            tally.damaged += u64::from(is_first);
        });
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.is_damaged.load(Ordering::Relaxed) {
            self.count(|tally| tally.damaged_ended += 1);
        }
    }
}
