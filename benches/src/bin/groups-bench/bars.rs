//! What groups have to reach, and with which settings.

use quorate_benches::Bar;

use crate::options::Options;
use crate::report::{Called, Served};

/// Processor time of all processes while nobody uses their groups.
pub(crate) const IDLE: Bar = Bar::at_most(3.0, "% of one core");
/// Memory of a process with as many groups.
pub(crate) const MEMORY: Bar = Bar::at_most(200.0, "MB more than of ten groups");

/// Whether these two are about so many groups.
pub(crate) const fn are_for_idle(groups: u64, awake: bool) -> bool {
    groups == 1_000 && !awake
}

/// From a kill until others have served every group.
pub(crate) const SERVING_AGAIN: Bar = Bar::at_most(3.0, "s until all serve again");
/// How often a group elects for that.
pub(crate) const ELECTIONS: Bar = Bar::at_most(2.0, "elections of a group");

/// Whether these two are about a kill with such settings.
pub(crate) const fn are_for_killed(options: &Options) -> bool {
    options.led == 300 && options.clients == 64
}

/// The leader's commands per second while a follower catches up.
pub(crate) const CATCHING_UP: Bar = Bar::at_least(0.8, "of all three");

/// Whether it is about a follower with such settings.
pub(crate) const fn is_for_catching_up(options: &Options) -> bool {
    let is_default_rate = options.snapshot_mib_per_second.is_none();
    options.state_mib == 128 && options.clients == 64 && is_default_rate
}

/// A bar of one kind of work with so many clients, beside etcd.
pub(crate) struct Calling {
    work: &'static str,
    callers: u32,
    pub(crate) figure: fn(&Served) -> f64,
    pub(crate) bar: Bar,
}

static CALLING: [Calling; 5] = [
    rate("set", 1, 2.0),
    rate("set", 64, 5.0),
    Calling {
        work: "set",
        callers: 64,
        figure: |served| served.p99_millis,
        bar: Bar::below(1.0, "x its p99"),
    },
    rate("set", 256, 5.0),
    rate("get", 64, 5.0),
];

const fn rate(work: &'static str, callers: u32, times: f64) -> Calling {
    let figure: fn(&Served) -> f64 = |served| served.per_second;
    Calling { work, callers, figure, bar: Bar::at_least(times, "x etcd") }
}

/// The bars of such work.
pub(crate) fn of_calls(called: &Called) -> impl Iterator<Item = &'static Calling> {
    let Called { work, callers, .. } = called;
    CALLING.iter().filter(move |it| it.work == *work && it.callers == *callers)
}
