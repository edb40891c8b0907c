//! Crashes at every write and every sync of a workload.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_types::env::{Rng, SplitMix};

use super::CrashDisk;
use crate::TestkitError;

/// How thorough a sweep is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepOptions {
    /// Decides which unsynced writes survive each crash.
    pub seed: u64,
    /// At most so many operations are crashed at. A workload with more of them
    /// is crashed at so many that lie evenly apart, each sweep of another seed
    /// at others.
    pub points_max: u64,
    /// How often each operation is crashed at, each time with other survivors.
    pub rounds: u64,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self { seed: 0, points_max: 10_000, rounds: 1 }
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepReport {
    /// Operations of the workload without a crash.
    pub operations: u64,
    /// Crashes survived.
    pub crashes: u64,
    /// Those of them that found something unsynced.
    pub crashes_unsynced: u64,
}

/// Runs `workload` on an empty disk to count what it does to it, then again
/// from the start for every such operation, with power cut during it, and lets
/// `verify` open what is left.
///
/// The workload notes in its ledger what was promised (acknowledged) and what
/// was attempted; `verify` compares. A panic in either is a finding; an error
/// of the workload after its crash is expected. Both must be deterministic; what
/// is asynchronous runs in [`crate::sim::run`].
///
/// # Errors
/// `Workload` when it fails without a crash, `Sweep` for the first crash from
/// which the state does not come back.
pub fn sweep<L: Default, E: Display, F: Display>(
    options: SweepOptions,
    mut workload: impl FnMut(&CrashDisk, &mut L) -> Result<(), E>,
    mut verify: impl FnMut(&CrashDisk, &L) -> Result<(), F>,
) -> Result<SweepReport, TestkitError> {
    let healthy = CrashDisk::new(options.seed);
    let mut ledger = L::default();
    contain(|| workload(&healthy, &mut ledger)).map_err(TestkitError::Workload)?;
    let operations = healthy.counters().operations;
    contain(|| verify(&healthy.reboot(), &ledger)).map_err(TestkitError::Workload)?;

    let mut report = SweepReport { operations, crashes: 0, crashes_unsynced: 0 };
    let stride = operations.div_ceil(options.points_max.max(1)).max(1);
    let first = 1 + SplitMix::new(options.seed).below(stride);
    for round in 0..options.rounds {
        let mut operation = first;
        while operation <= operations {
            let mut seed = SplitMix::new(options.seed ^ (round << 32) ^ operation);
            let seed = seed.next_u64();
            let failed =
                |reason: String| TestkitError::Sweep { operation, operations, seed, reason };
            let disk = CrashDisk::new(options.seed);
            disk.arm(operation, seed);
            let mut ledger = L::default();
            let end = contain(|| workload(&disk, &mut ledger));
            if disk.is_live() {
                return Err(failed(match end {
                    Ok(()) => "the workload is not deterministic: it ended earlier".to_owned(),
                    Err(reason) => format!("the workload failed before the crash: {reason}"),
                }));
            }
            if let Err(reason) = end
                && reason.starts_with(PANICKED)
            {
                return Err(failed(reason));
            }
            let counters = disk.counters();
            report.crashes += 1;
            report.crashes_unsynced += counters.crashes_unsynced;
            contain(|| verify(&disk.reboot(), &ledger)).map_err(failed)?;
            operation += stride;
        }
    }
    Ok(report)
}

const PANICKED: &str = "panicked: ";

/// Turns an error or a panic into its message.
fn contain<E: Display>(work: impl FnOnce() -> Result<(), E>) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(payload) => Err(format!("{PANICKED}{}", panic_message(payload.as_ref()))),
    }
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no message)".to_owned())
}
