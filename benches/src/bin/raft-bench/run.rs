//! The turns: each log is measured once in every round, beginning with another
//! one each time, so that what the machine does meanwhile befalls all alike.

use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_benches::{Machine, written_bytes};
use quorate_raft::LogMedium;

use crate::Outcome;
use crate::drive::{Driven, PAYLOAD, Shape};
use crate::opening;
use crate::options::Options;
use crate::report::{Opening, Report, Round, Table};
use crate::stores::{Log, Ours, Peer, Raw, RowPerEntry};

/// Names, as they stand in the tables.
pub(crate) const RAW: &str = "raw file, prefilled";
pub(crate) const SEGMENTS: &str = "quorate, segments";
pub(crate) const REDB: &str = "quorate, redb";
pub(crate) const ROWS: &str = "redb, a row per entry";
pub(crate) const RAFT_ENGINE: &str = "raft-engine";

/// For how long each log runs before it is measured, in measurements.
const WARM_UP: u32 = 4;

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
            let seconds = opening::run(medium, options, scratch.path())?;
            report.openings.push(Opening { name: name.to_owned(), seconds });
        }
        println!("{}", report.of_openings(options.open_mib));
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
        log.run(shape, duration * WARM_UP)?;
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

impl Options {
    fn wants(&self, name: &str) -> bool {
        let logs = self.logs.as_deref();
        logs.is_none_or(|words| words.iter().any(|word| name.contains(word.as_str())))
    }
}
