//! The turns: each log is measured once in every round, beginning with another
//! one each time, so that what the machine does meanwhile befalls all alike.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quorate_benches::{Machine, written_bytes};
use quorate_raft::LogMedium;

use crate::Outcome;
use crate::drive::{Driven, PAYLOAD, Shape};
use crate::options::Options;
use crate::report::{Report, Round, Table};
use crate::stores::{Log, Ours, Peer, Raw, RowPerEntry};

/// Names, as they stand in the tables.
pub(crate) const RAW: &str = "raw file, prefilled";
pub(crate) const SEGMENTS: &str = "quorate, segments";
pub(crate) const REDB: &str = "quorate, redb";
pub(crate) const ROWS: &str = "redb, a row per entry";
pub(crate) const RAFT_ENGINE: &str = "raft-engine";

/// Groups of the log that is opened after a crash.
const OPENED_GROUPS: u64 = 64;
/// How often it is opened.
const OPENINGS: u32 = 3;

const MEDIA: [(&str, LogMedium); 2] =
    [(SEGMENTS, LogMedium::SEGMENTS), (REDB, LogMedium::Redb { cache_bytes: 32 << 20 })];

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> Outcome {
    let shapes = options.shapes.iter().map(|shape| shape.parse::<Shape>());
    let shapes = shapes.collect::<Result<Vec<_>, _>>()?;
    let beside = std::env::current_exe()?;
    let beside = beside.parent().unwrap_or(Path::new(".")).to_owned();
    let parent = options.dir.as_deref().unwrap_or(&beside);
    std::fs::create_dir_all(parent)
        .map_err(|error| format!("cannot use {}: {error}", parent.display()))?;
    let scratch = tempfile::tempdir_in(parent)?;
    let machine = Machine::of(scratch.path());
    if machine.is_in_memory() {
        return Err(format!(
            "{} is in memory, where syncs cost nothing: choose a disk with --dir",
            scratch.path().display()
        )
        .into());
    }
    println!("{}", machine.describe());
    if options.peers.is_none() {
        println!("without {RAFT_ENGINE}: benches/peers is not built");
    }
    let mut report = Report::new(machine);
    for shape in shapes {
        let table = measure(options, shape, scratch.path())?;
        println!("{table}");
        report.tables.push(table);
    }
    if options.open_mib > 0 {
        for (name, medium) in MEDIA.into_iter().filter(|(name, _)| options.wants(name)) {
            let seconds = open(name, medium, options.open_mib, scratch.path())?;
            println!("opening {} MiB after a kill: {name} {seconds:.2} s", options.open_mib);
            report.openings.push((name.to_owned(), seconds));
        }
    }
    report.write(options.json.as_deref())
}

fn measure(options: &Options, shape: Shape, scratch: &Path) -> Outcome<Table> {
    let directory = |name: &str| -> Outcome<PathBuf> {
        let path = scratch.join(format!("{shape}-{}", name.replace([' ', ','], "-")));
        std::fs::create_dir(&path)?;
        Ok(path)
    };
    let mut logs: Vec<(&str, Box<dyn Log>)> = Vec::new();
    if options.wants(RAW) {
        logs.push((RAW, Box::new(Driven::new(Raw::open(&directory(RAW)?)?))));
    }
    if options.wants(ROWS) {
        logs.push((ROWS, Box::new(Driven::new(RowPerEntry::open(&directory(ROWS)?)?))));
    }
    for (name, medium) in MEDIA {
        if options.wants(name) {
            let log = Ours::open(&directory(name)?, medium, groups_of(shape))?;
            logs.push((name, Box::new(log)));
        }
    }
    if let Some(program) = options.peers.as_ref().filter(|_| options.wants(RAFT_ENGINE)) {
        let peer = Peer::start(program, RAFT_ENGINE, &directory(RAFT_ENGINE)?)?;
        logs.push((RAFT_ENGINE, Box::new(peer)));
    }
    let mut table = Table::new(shape, logs.iter().map(|(name, _)| *name));
    let duration = Duration::from_millis(options.millis);
    for (_, log) in &mut logs {
        // Files are made and filled, until some of them are used again.
        log.run(shape, duration * 2)?;
    }
    for round in 0..options.rounds as usize {
        let count = logs.len();
        for turn in 0..count {
            let at = (round + turn) % count;
            let Some((_, log)) = logs.get_mut(at) else { continue };
            let before = written_bytes(scratch);
            let measured = log.run(shape, duration)?;
            let written = written_bytes(scratch).zip(before).map(|(after, before)| after - before);
            let payload = measured.entries * PAYLOAD.len() as u64;
            table.add(at, Round::new(measured, written.map(|it| it as f64 / payload as f64)));
        }
    }
    drop(logs);
    for entry in std::fs::read_dir(scratch)? {
        std::fs::remove_dir_all(entry?.path())?;
    }
    Ok(table)
}

/// Groups that take part.
const fn groups_of(shape: Shape) -> u64 {
    match shape {
        Shape::Batch(_) => 1,
        Shape::Groups(count) | Shape::Appenders(count) => count,
    }
}

/// Fills a log and opens it as after a kill: nothing is written when a log is
/// closed, so it is all the same to it.
fn open(name: &str, medium: LogMedium, mib: u64, scratch: &Path) -> Outcome<f64> {
    const APPENDED: u64 = 16;
    let directory = scratch.join("opened");
    std::fs::create_dir(&directory)?;
    let mut log = Ours::open(&directory, medium, OPENED_GROUPS)?;
    let round_bytes = OPENED_GROUPS * APPENDED * PAYLOAD.len() as u64;
    for _ in 0..(mib << 20) / round_bytes {
        log.append_all(APPENDED)?;
    }
    log.close()?;
    let mut seconds = Vec::new();
    for _ in 0..OPENINGS {
        let begin = Instant::now();
        let log = Ours::open(&directory, medium, OPENED_GROUPS)?;
        seconds.push(begin.elapsed().as_secs_f64());
        log.close()?;
    }
    std::fs::remove_dir_all(&directory)?;
    seconds.sort_by(f64::total_cmp);
    seconds.get(seconds.len() / 2).copied().ok_or_else(|| format!("{name} was not opened").into())
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let logs = self.logs.as_deref();
        logs.is_none_or(|words| words.iter().any(|word| name.contains(word.as_str())))
    }
}
