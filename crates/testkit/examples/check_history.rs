//! Judges a history of list-append transactions in Jepsen's JSON-lines shape:
//! `check_history FILE`. Without a file it writes and judges a small one.

use std::fs::File;
use std::io::BufReader;
use std::process::ExitCode;

use quorate_testkit::TestkitError;
use quorate_testkit::check::list_append::{self, Consistency};
use quorate_testkit::check::{Verdict, linearizable};
use quorate_testkit::history::History;

/// Two clients read the same list and both append to it: one of the updates
/// did not know of the other.
const LOST_UPDATE: &str = r#"
{"index":0,"type":"invoke","process":0,"time":1000,"f":"txn","value":[["r","x",null],["append","x",1]]}
{"index":1,"type":"invoke","process":1,"time":2000,"f":"txn","value":[["r","x",null],["append","x",2]]}
{"index":2,"type":"ok","process":0,"time":3000,"f":"txn","value":[["r","x",[]],["append","x",1]]}
{"index":3,"type":"ok","process":1,"time":4000,"f":"txn","value":[["r","x",[]],["append","x",2]]}
{"index":4,"type":"invoke","process":2,"time":5000,"f":"txn","value":[["r","x",null]]}
{"index":5,"type":"ok","process":2,"time":6000,"f":"txn","value":[["r","x",[1,2]]]}
"#;

fn main() -> Result<ExitCode, TestkitError> {
    let history = match std::env::args_os().nth(1) {
        Some(path) => History::read_json(&mut BufReader::new(File::open(path)?))?,
        None => History::read_json(&mut LOST_UPDATE.as_bytes())?,
    };
    let operations = history.operations()?;
    println!("{} operations", operations.len());
    let verdict = list_append::check(&operations, Consistency::StrictSerializable);
    println!("strict serializability: {verdict}");
    let serializable = list_append::check(&operations, Consistency::Serializable);
    println!("serializability alone: {serializable}");
    let searched =
        linearizable::check(&operations, &Default::default(), linearizable::STEPS_MAX_DEFAULT);
    println!("by search: {searched}");
    let is_demo = std::env::args_os().len() < 2;
    let is_as_hoped = (verdict == Verdict::Valid) != is_demo;
    Ok(if is_as_hoped { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
