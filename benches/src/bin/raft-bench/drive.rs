//! What logs are put to, and how long it takes them. The peers, which are built
//! in a workspace of their own, take this very file.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

/// The payload of every entry.
pub(crate) const PAYLOAD: [u8; 256] = [0x5a; 256];
/// Entries of a group that are kept when the ones before are purged.
const KEPT_ENTRIES: u64 = 2 << 10;
/// How often that happens, in entries of the group.
const PURGE_EVERY: u64 = 1 << 10;
/// The most groups that a shape has.
const GROUPS_MAX: u64 = 1 << 10;

/// Who appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One group, so many entries at a time, the next when they are durable.
    Batch(u64),
    /// So many groups, an entry of each at a time, likewise.
    Groups(u64),
    /// So many tasks, each with a group of its own and one entry on its way.
    Appenders(u64),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch(count) => write!(f, "b{count}"),
            Self::Groups(count) => write!(f, "g{count}"),
            Self::Appenders(count) => write!(f, "a{count}"),
        }
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no shape: b256 is a batch of 256 entries, g64 one entry of each of \
                     64 groups, a64 64 tasks that append one after the other; at most {GROUPS_MAX}"
            )
        };
        let (kind, count) = text.split_at_checked(1).ok_or_else(wrong)?;
        let count = count.parse().ok().filter(|count| (1..=GROUPS_MAX).contains(count));
        let count = count.ok_or_else(wrong)?;
        match kind {
            "b" => Ok(Self::Batch(count)),
            "g" => Ok(Self::Groups(count)),
            "a" => Ok(Self::Appenders(count)),
            _ => Err(wrong()),
        }
    }
}

/// Which entry.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) group: u64,
    pub(crate) index: u64,
}

impl Entry {
    /// Up to where its group's log is purged with it, now and then.
    pub(crate) const fn purges(self) -> Option<u64> {
        if self.index.is_multiple_of(PURGE_EVERY) {
            self.index.checked_sub(KEPT_ENTRIES)
        } else {
            None
        }
    }
}

/// What was measured.
#[derive(Debug, Default)]
pub(crate) struct Measured {
    pub(crate) entries: u64,
    pub(crate) seconds: f64,
    /// How long each commit took, and each entry of [`Shape::Appenders`].
    pub(crate) micros: Vec<u64>,
}

/// A log with one writer.
pub(crate) trait Store: Send {
    /// Returns when the entries are durable, each with [`PAYLOAD`].
    fn commit(&mut self, entries: &[Entry]) -> io::Result<()>;
}

/// A log and where each group continues.
#[derive(Debug)]
pub(crate) struct Driven<S> {
    pub(crate) store: S,
    next: Vec<u64>,
}

impl<S: Store> Driven<S> {
    pub(crate) fn new(store: S) -> Self {
        Self { store, next: vec![1; usize::try_from(GROUPS_MAX).unwrap_or_default()] }
    }

    fn next(&mut self, group: u64) -> Entry {
        let next = usize::try_from(group).ok().and_then(|at| self.next.get_mut(at));
        let index = next.map_or(0, |next| std::mem::replace(next, *next + 1));
        Entry { group, index }
    }

    pub(crate) fn run(&mut self, shape: Shape, duration: Duration) -> io::Result<Measured> {
        match shape {
            Shape::Batch(count) => {
                self.alone(duration, |log| (0..count).map(|_| log.next(0)).collect())
            }
            Shape::Groups(count) => {
                self.alone(duration, |log| (0..count).map(|it| log.next(it)).collect())
            }
            Shape::Appenders(count) => self.together(count, duration),
        }
    }

    fn alone(
        &mut self,
        duration: Duration,
        mut entries: impl FnMut(&mut Self) -> Vec<Entry>,
    ) -> io::Result<Measured> {
        let mut measured = Measured::default();
        let begin = Instant::now();
        while begin.elapsed() < duration {
            let entries = entries(self);
            let start = Instant::now();
            self.store.commit(&entries)?;
            measured.micros.push(micros(start));
            measured.entries += entries.len() as u64;
        }
        measured.seconds = begin.elapsed().as_secs_f64();
        Ok(measured)
    }

    /// The tasks share a thread; what they ask for meanwhile is the next commit.
    fn together(&mut self, count: u64, duration: Duration) -> io::Result<Measured> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let (wanted, mut asked) = mpsc::unbounded_channel::<(u64, oneshot::Sender<()>)>();
        let appender = move |group| {
            let wanted = wanted.clone();
            async move {
                let (begin, mut all) = (Instant::now(), Vec::new());
                while begin.elapsed() < duration {
                    let (done, durable) = oneshot::channel();
                    let start = Instant::now();
                    if wanted.send((group, done)).is_err() || durable.await.is_err() {
                        break;
                    }
                    all.push(micros(start));
                }
                all
            }
        };
        std::thread::scope(|scope| {
            let committer = scope.spawn(move || -> io::Result<()> {
                while let Some(first) = asked.blocking_recv() {
                    let mut waiting = vec![first];
                    while let Ok(next) = asked.try_recv() {
                        waiting.push(next);
                    }
                    let entries: Vec<Entry> =
                        waiting.iter().map(|(group, _)| self.next(*group)).collect();
                    self.store.commit(&entries)?;
                    for (_, done) in waiting {
                        // Whoever asked may have gone.
                        let _ = done.send(());
                    }
                }
                Ok(())
            });
            let measured = tasks(&runtime, count, appender);
            let ended = committer.join().map_err(|_| io::Error::other("the committer panicked"))?;
            ended.map(|()| measured)
        })
    }
}

/// Runs so many tasks on this thread, each of which tells how long its entries
/// took.
#[allow(clippy::disallowed_methods, reason = "no part of a node, and of another runtime")]
pub(crate) fn tasks<F>(
    runtime: &tokio::runtime::Runtime,
    count: u64,
    appender: impl Fn(u64) -> F,
) -> Measured
where
    F: Future<Output = Vec<u64>> + Send + 'static,
{
    let begin = Instant::now();
    let micros = runtime.block_on(async {
        let all: Vec<_> = (0..count).map(|group| tokio::spawn(appender(group))).collect();
        drop(appender);
        let mut micros = Vec::new();
        for one in all {
            micros.extend(one.await.unwrap_or_default());
        }
        micros
    });
    Measured { entries: micros.len() as u64, seconds: begin.elapsed().as_secs_f64(), micros }
}

pub(crate) fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}
