//! The port's implementation.

use quorate_calvin::{Call, Inputs, Outcome, Procedures, Rows};
use quorate_types::{Blob, KeyRange};

use super::digest::Digest;
use super::interpreter::execute;
use super::verdict::{KeyVersion, Verdict};
use crate::commands::{Program, Watch};
use crate::resp::Reply;

/// The procedure number of every [`Program`].
pub const REDIS_PROCEDURE: u32 = 1;

/// Runs [`Program`]s. Holds no state: the outcome is a function of the call,
/// the inputs and the time in the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedisProcedures;

impl Procedures for RedisProcedures {
    fn scan(&self, call: &Call, _: &KeyRange, rows: &mut Rows<'_>) -> Blob {
        match Program::decode(&call.args) {
            Ok(program) if program.reads_all() => Digest::of(&program.patterns(), rows).encode(),
            _ => Blob::new(),
        }
    }

    fn run(&self, call: &Call, inputs: &Inputs, time_millis: u64, _seed: u64) -> Outcome {
        let program = match Program::decode(&call.args) {
            Ok(program) if call.procedure == REDIS_PROCEDURE => program,
            Ok(_) => return refuse("ERR unknown procedure"),
            Err(error) => return refuse(&format!("ERR {error}")),
        };
        if !program.watches.iter().all(|watch| holds(watch, inputs)) {
            return verdict_only(&Verdict::Changed);
        }
        if !program.versions.is_empty() {
            let versions = program.versions.iter().map(|key| version_of(key, inputs)).collect();
            return verdict_only(&Verdict::Versions(versions));
        }
        execute(&program, inputs, time_millis)
    }
}

/// Whether a watched key is as it was. A key that nobody read cannot be: a
/// footprint always contains the watches, so this is a damaged call.
fn holds(watch: &Watch, inputs: &Inputs) -> bool {
    inputs
        .reads
        .get(&watch.key)
        .is_some_and(|read| read.version == watch.version && read.value.is_some() == watch.present)
}

fn version_of(key: &Blob, inputs: &Inputs) -> KeyVersion {
    inputs.reads.get(key).map_or(KeyVersion { version: 0, present: false }, |read| KeyVersion {
        version: read.version,
        present: read.value.is_some(),
    })
}

pub(super) fn refuse(text: &str) -> Outcome {
    verdict_only(&Verdict::Replies(vec![Reply::error(text)].into()))
}

fn verdict_only(verdict: &Verdict) -> Outcome {
    Outcome { result: verdict.encode(), ..Outcome::default() }
}
