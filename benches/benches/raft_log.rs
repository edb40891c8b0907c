//! The shared log of a node, against the disk under it.
//!
//! So many groups each append one entry after another, the next when the last
//! is durable: what a node does for its clients. All of them share one file
//! and its syncs (group commit), so the limit is a loop that writes as many
//! entries in one piece and syncs. Two limits: a file that grows, as the log's
//! does, and a prefilled one, which is the best that this disk can do.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a bench: it measures real time, and what fails ends it"
)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{Criterion, SamplingMode};
use quorate_benches::{RawLog, Scoreboard};
use quorate_raft::{DurableLog, LogConfig, LogEngine, LogEntry, LogPosition};
use quorate_types::disk::DirectoryDisk;
use quorate_types::{GroupId, ReplicaId, runtime};
use tokio::sync::oneshot;

const PAYLOAD_BYTES: usize = 256;
/// What a raw log needs around an entry: group, index, term.
const HEADER_BYTES: usize = 24;
const GROUPS: [u64; 4] = [1, 16, 64, 256];
const PREFILLED_BYTES: u64 = 64 << 20;

fn main() {
    let mut criterion = quorate_benches::criterion();
    bench(&mut criterion);
    criterion.final_summary();
}

fn bench(criterion: &mut Criterion) {
    let scratch = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut group = criterion.benchmark_group("raft_log");
    group.sampling_mode(SamplingMode::Flat);
    let mut scores = Scoreboard::of("entries");
    let mut sharing = String::new();
    for groups in GROUPS {
        let record = vec![0x5a; (PAYLOAD_BYTES + HEADER_BYTES) * usize::try_from(groups).unwrap()];
        let growing = format!("raw, growing, {groups} entries per sync");
        let mut raw = RawLog::growing(scratch.path(), &format!("growing-{groups}")).unwrap();
        scores.bench(&mut group, &growing, &[], groups, |rounds| sync(&mut raw, &record, rounds));

        let prefilled = format!("raw, prefilled, {groups} entries per sync");
        let name = format!("prefilled-{groups}");
        let mut raw = RawLog::prefilled(scratch.path(), &name, PREFILLED_BYTES).unwrap();
        scores.bench(&mut group, &prefilled, &[], groups, |rounds| sync(&mut raw, &record, rounds));

        let mut log = Log::open(scratch.path(), groups);
        let name = format!("log, {groups} groups");
        let limits = [growing.as_str(), prefilled.as_str()];
        scores.bench(&mut group, &name, &limits, groups, |rounds| log.append(rounds));
        let stats = log.log.stats();
        let shared = stats.entries as f64 / stats.commits.max(1) as f64;
        sharing
            .push_str(&format!("  {groups} groups: {shared:.1} entries per commit of the log\n"));
    }
    group.finish();
    println!("\nraft_log, entries of {PAYLOAD_BYTES} bytes, durable:\n{scores}{sharing}");
}

fn sync(raw: &mut RawLog, record: &[u8], rounds: u64) -> Duration {
    let start = Instant::now();
    for _ in 0..rounds {
        raw.append(record).unwrap();
    }
    start.elapsed()
}

struct Log {
    runtime: tokio::runtime::Runtime,
    log: Arc<DurableLog>,
    groups: u64,
    /// The index of every group's next entry.
    next: u64,
}

impl Log {
    fn open(directory: &Path, groups: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let disk = DirectoryDisk::open(directory).unwrap();
        let name = format!("log-{groups}");
        let log = runtime.block_on(async {
            let log = DurableLog::open(Arc::new(disk), &name, LogConfig::default()).unwrap();
            for group in 0..groups {
                log.admit(GroupId(group), ReplicaId(group)).await.unwrap();
            }
            Arc::new(log)
        });
        Self { runtime, log, groups, next: 1 }
    }

    /// Every group appends `rounds` entries, each at its own pace.
    fn append(&mut self, rounds: u64) -> Duration {
        let indexes = self.next..self.next + rounds;
        self.next = indexes.end;
        self.runtime.block_on(async {
            let start = Instant::now();
            let appender = |group| {
                let (log, indexes) = (self.log.clone(), indexes.clone());
                runtime::spawn(async move {
                    for index in indexes {
                        append(&log, GroupId(group), index).await;
                    }
                })
            };
            let appenders: Vec<_> = (0..self.groups).map(appender).collect();
            for appender in appenders {
                appender.await.unwrap();
            }
            start.elapsed()
        })
    }
}

async fn append(log: &DurableLog, group: GroupId, index: u64) {
    static PAYLOAD: [u8; PAYLOAD_BYTES] = [0x5a; PAYLOAD_BYTES];
    let (done, durable) = oneshot::channel();
    let position = LogPosition { term: 1, index };
    let entry = LogEntry { position, payload: Bytes::from_static(&PAYLOAD) };
    log.append(group, vec![entry], Box::new(move |result| drop(done.send(result)))).await.unwrap();
    durable.await.unwrap().unwrap();
}
