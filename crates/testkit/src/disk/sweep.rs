//! Crashes at every write and every sync of a workload.

use std::any::Any;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_types::env::{Rng, SplitMix};

use super::{CrashDisk, DiskImage};
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
    /// Which of the crashes are tried.
    pub share: SweepShare,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self { seed: 0, points_max: 10_000, rounds: 1, share: SweepShare::WHOLE }
    }
}

/// A part of a sweep. Shares of one sweep, with the same options otherwise, can
/// be swept by several processes at once: together they try every crash, and
/// each crash once. Neighbouring crashes are in different shares, so that all
/// take about as long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepShare {
    index: u64,
    count: u64,
}

impl SweepShare {
    /// All of it.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Share `index`, counted from zero, of `count`; `None` if there is no such
    /// share.
    #[must_use]
    pub const fn new(index: u64, count: u64) -> Option<Self> {
        if index < count { Some(Self { index, count }) } else { None }
    }

    const fn has(self, point: u64) -> bool {
        point % self.count == self.index
    }
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SweepReport {
    /// Operations of the workload without a crash.
    pub operations: u64,
    /// Crashes that all shares of the sweep try together.
    pub points: u64,
    /// Crashes survived: all that this share had to try.
    pub crashes: u64,
    /// Those of them that found something unsynced.
    pub crashes_unsynced: u64,
    /// Writes that were torn by them.
    pub writes_torn: u64,
}

impl Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { operations, points, crashes, crashes_unsynced, writes_torn } = self;
        write!(
            f,
            "{crashes} of {points} crashes in {operations} operations tried; \
             {crashes_unsynced} found unsynced data and tore {writes_torn} writes"
        )
    }
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
    workload: impl FnMut(&CrashDisk, &mut L) -> Result<(), E>,
    verify: impl FnMut(&CrashDisk, &L) -> Result<(), F>,
) -> Result<SweepReport, TestkitError> {
    sweep_from(&DiskImage::default(), options, workload, verify)
}

/// As [`sweep`], but the workload finds `base` on its disk each time: what
/// comes before the part that is swept need not run again for every crash.
///
/// # Errors
/// As [`sweep`].
pub fn sweep_from<L: Default, E: Display, F: Display>(
    base: &DiskImage,
    options: SweepOptions,
    mut workload: impl FnMut(&CrashDisk, &mut L) -> Result<(), E>,
    mut verify: impl FnMut(&CrashDisk, &L) -> Result<(), F>,
) -> Result<SweepReport, TestkitError> {
    let healthy = CrashDisk::from_image(base, options.seed);
    let mut ledger = L::default();
    contain(|| workload(&healthy, &mut ledger)).map_err(TestkitError::Workload)?;
    let operations = healthy.counters().operations;
    contain(|| verify(&healthy.reboot(), &ledger)).map_err(TestkitError::Workload)?;

    let stride = operations.div_ceil(options.points_max.max(1)).max(1);
    let first = 1 + SplitMix::new(options.seed).below(stride);
    let operations_hit =
        (first..=operations).step_by(usize::try_from(stride).unwrap_or(usize::MAX));
    let mut report =
        SweepReport { operations, points: 0, crashes: 0, crashes_unsynced: 0, writes_torn: 0 };
    for round in 0..options.rounds {
        for operation in operations_hit.clone() {
            report.points += 1;
            if !options.share.has(report.points - 1) {
                continue;
            }
            let mut seed = SplitMix::new(options.seed ^ (round << 32) ^ operation);
            let seed = seed.next_u64();
            let failed =
                |reason: String| TestkitError::Sweep { operation, operations, seed, reason };
            let disk = CrashDisk::from_image(base, options.seed);
            disk.arm(operation, seed);
            let mut ledger = L::default();
            crash_during(&disk, || workload(&disk, &mut ledger)).map_err(failed)?;
            let counters = disk.counters();
            report.crashes += 1;
            report.crashes_unsynced += counters.crashes_unsynced;
            report.writes_torn += counters.writes_torn;
            contain(|| verify(&disk.reboot(), &ledger)).map_err(failed)?;
        }
    }
    Ok(report)
}

/// Lets a workload run into the power cut that its disk is armed for.
fn crash_during<E: Display>(
    disk: &CrashDisk,
    workload: impl FnOnce() -> Result<(), E>,
) -> Result<(), String> {
    let end = contain(workload);
    match end {
        Ok(()) if disk.is_live() => {
            Err("the workload is not deterministic: it ended earlier".to_owned())
        }
        Err(reason) if disk.is_live() => {
            Err(format!("the workload failed before the crash: {reason}"))
        }
        Err(reason) if reason.starts_with(PANICKED) => Err(reason),
        // That it fails without its disk is expected.
        Ok(()) | Err(_) => Ok(()),
    }
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
