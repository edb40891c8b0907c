//! The logs, each on the same disk in a directory of its own.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quorate_benches::RawLog;
use quorate_raft::{DurableLog, LogConfig, LogEngine, LogEntry, LogMedium, LogPosition};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{GroupId, ReplicaId};
use redb::{Database, Durability, TableDefinition};
use serde::Deserialize;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use crate::Outcome;
use crate::drive::{Driven, Entry, Measured, PAYLOAD, Shape, Store, micros, tasks};

/// A log that can be measured.
pub(crate) trait Log {
    fn run(&mut self, shape: Shape, duration: Duration) -> Outcome<Measured>;
}

impl<S: Store> Log for Driven<S> {
    fn run(&mut self, shape: Shape, duration: Duration) -> Outcome<Measured> {
        Ok(Self::run(self, shape, duration)?)
    }
}

/// What the disk allows: a prefilled file, written over and synced, without any
/// checksum or memory of what is where.
pub(crate) struct Raw {
    log: RawLog,
    buffer: Vec<u8>,
}

impl Raw {
    const PREFILLED_BYTES: u64 = 64 << 20;

    pub(crate) fn open(directory: &Path) -> io::Result<Self> {
        let log = RawLog::prefilled(directory, "raw", Self::PREFILLED_BYTES)?;
        Ok(Self { log, buffer: Vec::new() })
    }
}

impl Store for Raw {
    fn commit(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.buffer.clear();
        for Entry { group, index } in entries {
            // What a reader needs of an entry: group, index, term.
            for number in [*group, *index, 1] {
                self.buffer.extend_from_slice(&number.to_be_bytes());
            }
            self.buffer.extend_from_slice(&PAYLOAD);
        }
        self.log.append(&self.buffer)
    }
}

/// redb with an entry in each row, by group and index: what one would write
/// first.
pub(crate) struct RowPerEntry(Database);

impl RowPerEntry {
    const TABLE: TableDefinition<'static, (u64, u64), &'static [u8]> = TableDefinition::new("log");

    pub(crate) fn open(directory: &Path) -> Outcome<Self> {
        let database = Database::create(directory.join("rows.redb"))?;
        Ok(Self(database))
    }

    fn write(&self, entries: &[Entry]) -> Result<(), redb::Error> {
        let mut transaction = self.0.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut table = transaction.open_table(Self::TABLE)?;
            for entry in entries {
                table.insert((entry.group, entry.index), &PAYLOAD[..])?;
                if let Some(upto) = entry.purges() {
                    table.retain_in((entry.group, 0)..=(entry.group, upto), |_, _| false)?;
                }
            }
        }
        Ok(transaction.commit()?)
    }
}

impl Store for RowPerEntry {
    fn commit(&mut self, entries: &[Entry]) -> io::Result<()> {
        self.write(entries).map_err(io::Error::other)
    }
}

/// Ours.
pub(crate) struct Ours {
    runtime: Runtime,
    log: Arc<DurableLog>,
    next: Vec<u64>,
}

impl Ours {
    pub(crate) fn open(directory: &Path, medium: LogMedium, groups: u64) -> Outcome<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let disk = Arc::new(DirectoryDisk::open(directory)?);
        let log = runtime.block_on(async {
            let config = LogConfig { medium, ..LogConfig::default() };
            let log = DurableLog::open(disk, "log", config)?;
            for group in 0..groups {
                log.admit(GroupId(group), ReplicaId(group)).await?;
            }
            Ok::<_, quorate_raft::LogError>(Arc::new(log))
        })?;
        let next = (0..groups).map(|group| Ok(log.state(GroupId(group))?.last));
        let next = next.collect::<Outcome<Vec<_>>>()?.into_iter();
        let next = next.map(|last| last.map_or(1, |last| last.index + 1)).collect();
        Ok(Self { runtime, log, next })
    }

    pub(crate) fn close(self) -> Outcome {
        Ok(self.runtime.block_on(self.log.close())?)
    }

    /// Appends `count` entries of each group and waits for all of them. Nothing
    /// is purged.
    pub(crate) fn append_all(&mut self, count: u64) -> Outcome {
        self.append(count, false)
    }

    fn append(&mut self, count: u64, purges: bool) -> Outcome {
        let Self { runtime, log, next } = self;
        let (mut appends, mut purged) = (Vec::with_capacity(next.len()), Vec::new());
        for (group, next) in (0..).zip(next.iter_mut()) {
            let indexes = *next..*next + count;
            *next = indexes.end;
            purged.extend(purge_with(group, indexes.clone()).filter(|_| purges));
            appends.push((GroupId(group), indexes.map(entry).collect()));
        }
        runtime.block_on(async {
            let (done, durable) = oneshot::channel();
            let done = Box::new(move |result| drop(done.send(result)));
            log.append_all(appends, done).await?;
            for (group, upto) in purged {
                log.purge(group, upto).await?;
            }
            Ok(durable.await??)
        })
    }

    fn alone(&mut self, count: u64, duration: Duration) -> Outcome<Measured> {
        let mut measured = Measured::default();
        let (begin, groups) = (Instant::now(), self.next.len() as u64);
        while begin.elapsed() < duration {
            let start = Instant::now();
            self.append(count, true)?;
            measured.micros.push(micros(start));
            measured.entries += count * groups;
        }
        measured.seconds = begin.elapsed().as_secs_f64();
        Ok(measured)
    }

    fn together(&mut self, duration: Duration) -> Measured {
        let Self { runtime, log, next } = self;
        let appender = |group: u64| {
            let log = Arc::clone(log);
            let at = usize::try_from(group).unwrap_or_default();
            let first = next.get(at).copied().unwrap_or_default();
            async move {
                let (begin, mut all) = (Instant::now(), Vec::new());
                for index in first.. {
                    if begin.elapsed() >= duration {
                        break;
                    }
                    let start = Instant::now();
                    let Ok(durable) = append(&log, group, index).await else { break };
                    if !matches!(durable.await, Ok(Ok(()))) {
                        break;
                    }
                    all.push(micros(start));
                }
                all
            }
        };
        let measured = tasks(runtime, next.len() as u64, appender);
        for (group, next) in (0..).map(GroupId).zip(next.iter_mut()) {
            let last = log.state(group).ok().and_then(|state| state.last);
            *next = last.map_or(1, |last| last.index + 1);
        }
        measured
    }
}

impl Log for Ours {
    fn run(&mut self, shape: Shape, duration: Duration) -> Outcome<Measured> {
        match shape {
            Shape::Batch(count) => self.alone(count, duration),
            Shape::Groups(_) => self.alone(1, duration),
            Shape::Appenders(_) => Ok(self.together(duration)),
        }
    }
}

type Durable = oneshot::Receiver<Result<(), quorate_raft::LogError>>;

/// One entry, and what is to be purged with it.
async fn append(log: &DurableLog, group: u64, index: u64) -> Outcome<Durable> {
    let (done, durable) = oneshot::channel();
    let done = Box::new(move |result| drop(done.send(result)));
    log.append(GroupId(group), vec![entry(index)], done).await?;
    if let Some((group, upto)) = purge_with(group, index..index + 1) {
        log.purge(group, upto).await?;
    }
    Ok(durable)
}

const fn entry(index: u64) -> LogEntry {
    LogEntry { position: LogPosition { term: 1, index }, payload: Bytes::from_static(&PAYLOAD) }
}

fn purge_with(group: u64, indexes: Range<u64>) -> Option<(GroupId, LogPosition)> {
    let upto = indexes.filter_map(|index| Entry { group, index }.purges()).next_back()?;
    Some((GroupId(group), LogPosition { term: 1, index: upto }))
}

/// A log of others, in a process of their own.
pub(crate) struct Peer {
    process: Child,
    asked: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    entries: u64,
    seconds: f64,
    micros: Vec<u64>,
}

impl Peer {
    pub(crate) fn start(program: &Path, name: &str, directory: &Path) -> Outcome<Self> {
        let mut command = Command::new(program);
        command.arg(name).arg(directory).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let asked = process.stdin.take();
        let answers = process.stdout.take().ok_or("a peer without an output")?;
        Ok(Self { process, asked, answers: BufReader::new(answers) })
    }
}

impl Log for Peer {
    fn run(&mut self, shape: Shape, duration: Duration) -> Outcome<Measured> {
        let asked = self.asked.as_mut().ok_or("the peer has ended")?;
        writeln!(asked, "{shape} {}", duration.as_millis())?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let Answer { entries, seconds, micros } = serde_json::from_str(&line)
            .map_err(|error| format!("a peer answered '{}': {error}", line.trim()))?;
        Ok(Measured { entries, seconds, micros })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It ends with its input.
        self.asked = None;
        if let Err(error) = self.process.wait() {
            eprintln!("a peer cannot be waited for: {error}");
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("process", &self.process).finish_non_exhaustive()
    }
}
