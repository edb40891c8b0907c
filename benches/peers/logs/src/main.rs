//! `bench-logs NAME DIRECTORY`: opens a log of others and measures it as it is
//! told. A line `SHAPE MILLISECONDS` on standard input is answered by one line of
//! JSON; the end of the input ends it.

#[path = "../../../src/bin/raft-bench/drive.rs"]
mod drive;

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::time::Duration;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize};

use drive::{Driven, Entry, Measured, PAYLOAD, Shape, Store};

/// raft-engine as TiKV runs it, save that it does not compress, which entries of
/// one byte over and over would flatter.
struct RaftEngine(Engine);

/// An entry of raft-engine: its index and the rest of the payload.
struct Indexed;

impl MessageExt for Indexed {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value.first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(index)
    }
}

impl RaftEngine {
    fn open(directory: &str) -> Result<Self, raft_engine::Error> {
        let config = Config {
            dir: directory.to_owned(),
            batch_compression_threshold: ReadableSize::kb(0),
            enable_log_recycle: true,
            prefill_for_recycle: true,
            ..Config::default()
        };
        Engine::open(config).map(Self)
    }
}

impl Store for RaftEngine {
    fn commit(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut batch = LogBatch::default();
        // One call for each run of entries of a group, which is how it is meant.
        for run in entries.chunk_by(|one, next| one.group == next.group) {
            let indexed = run.iter().map(|entry| {
                let mut value = entry.index.to_be_bytes().to_vec();
                value.extend_from_slice(PAYLOAD.get(value.len()..).unwrap_or_default());
                let mut indexed = BytesValue::new();
                indexed.set_value(value);
                indexed
            });
            let indexed: Vec<BytesValue> = indexed.collect();
            let Some(first) = run.first() else { continue };
            batch.add_entries::<Indexed>(first.group, &indexed).map_err(io::Error::other)?;
            if let Some(upto) = run.iter().filter_map(|entry| entry.purges()).last() {
                batch.add_command(first.group, Command::Compact { index: upto });
            }
        }
        self.0.write(&mut batch, true).map(drop).map_err(io::Error::other)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, directory] = arguments.as_slice() else {
        return Err("usage: bench-logs NAME DIRECTORY; the names are: raft-engine".into());
    };
    if name != "raft-engine" {
        return Err(format!("there is no log '{name}'; the names are: raft-engine").into());
    }
    let mut log = Driven::new(RaftEngine::open(directory)?);
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (shape, millis) = line.split_once(' ').ok_or("a line is 'SHAPE MILLISECONDS'")?;
        let (shape, duration) = (shape.parse::<Shape>()?, Duration::from_millis(millis.parse()?));
        let Measured { entries, seconds, micros } = log.run(shape, duration)?;
        let answer =
            serde_json::json!({ "entries": entries, "seconds": seconds, "micros": micros });
        let mut output = io::stdout().lock();
        writeln!(output, "{answer}")?;
        output.flush()?;
        // Between the turns, as a background thread of an idle node would.
        log.store.0.purge_expired_files()?;
    }
    Ok(())
}
