//! The simulator's own ends of the ports, against the suites that every
//! implementation of them must pass.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::sync::Arc;

use quorate_testkit::disk::{CrashDisk, Faults, SyncFault};
use quorate_testkit::sim::{SimClock, run};
use quorate_types::conformance::{clock_suite, disk_suite, durable_disk_suite};

/// Power cuts that each find another seed.
fn losing_power() -> impl FnMut(CrashDisk) -> CrashDisk {
    let mut seeds = 0..;
    move |disk| {
        disk.crash(seeds.next().unwrap());
        disk.reboot()
    }
}

#[test]
fn the_crash_disk_conforms() {
    disk_suite(|| Arc::new(CrashDisk::new(7)));
    durable_disk_suite(|| CrashDisk::new(7), losing_power());
}

#[test]
#[should_panic(expected = "`DiskFile::sync` makes everything written so far durable")]
fn a_crash_disk_that_lies_about_syncs_is_refused() {
    let lying = || {
        let disk = CrashDisk::new(7);
        disk.set_faults(Faults { sync: Some((1, SyncFault::Lie)), ..Faults::default() });
        disk
    };
    durable_disk_suite(lying, losing_power());
}

#[test]
fn a_clock_that_is_set_back_and_forth_conforms() {
    let finished = run(7, |sim| async move {
        let clock = SimClock::new(sim.begun(), -90_000);
        let mut by_millis = [5_000, -20_000, 0, -7].into_iter().cycle();
        clock_suite(&clock, || clock.jump(by_millis.next().unwrap())).await;
    });
    finished.unwrap();
}
