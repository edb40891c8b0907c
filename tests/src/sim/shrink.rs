//! A smaller run in which the same thing goes wrong.

use super::faults::Fault;
use super::options::Options;

/// Says whether a run still shows what is looked for.
pub(super) type Shows<'a> = dyn FnMut(&Options) -> bool + 'a;

/// Leaves out whatever may be left out: kinds of faults first, then single
/// strikes, then clients, shards and machines, then time.
pub(super) fn shrink(options: &Options, shows: &mut Shows<'_>) -> Options {
    let mut smallest = options.clone();
    loop {
        let before = smallest.clone();
        drop_kinds(&mut smallest, shows);
        drop_strikes(&mut smallest, shows);
        for simpler in SIMPLER {
            attempt(&mut smallest, simpler, shows);
        }
        if smallest == before {
            return smallest;
        }
    }
}

/// Takes a change if it changes something and the run still shows it.
fn attempt(
    options: &mut Options,
    change: impl FnOnce(&mut Options),
    shows: &mut Shows<'_>,
) -> bool {
    let mut changed = options.clone();
    change(&mut changed);
    let is_taken = changed != *options && shows(&changed);
    if is_taken {
        *options = changed;
    }
    is_taken
}

fn drop_kinds(options: &mut Options, shows: &mut Shows<'_>) {
    let kinds: Vec<Fault> = options.kinds();
    for kind in kinds {
        attempt(options, |it| it.strikes.retain(|strike| strike.fault != kind), shows);
    }
}

/// Halves, quarters, and so on, down to single strikes.
fn drop_strikes(options: &mut Options, shows: &mut Shows<'_>) {
    let mut size = options.strikes.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < options.strikes.len() {
            let end = (at + size).min(options.strikes.len());
            if !attempt(options, |it| drop(it.strikes.drain(at..end)), shows) {
                at = end;
            }
        }
        size /= 2;
    }
}

const SIMPLER: [fn(&mut Options); 24] = [
    |it| it.stumbles = false,
    |it| it.load.operations_max = (it.load.operations_max / 2).max(100),
    |it| it.load.weights.audits = 0,
    |it| it.load.weights.list_reads = 0,
    |it| it.load.weights.transfers = 0,
    |it| it.load.weights.appends = 0,
    |it| it.load.weights.puts = 0,
    |it| it.load.weights.registers = 0,
    |it| it.load.weights.counters = 0,
    |it| it.load.weights.reads = 0,
    |it| it.load.weights.claims = 0,
    |it| it.load.clients = (it.load.clients / 2).max(1),
    |it| it.load.padding_bytes = 0,
    |it| drop(it.cuts.pop()),
    |it| it.quiet_millis = None,
    |it| it.lease_reads = false,
    |it| it.slow_disk = None,
    |it| it.skew_millis = 0,
    |it| it.has_placement = false,
    |it| it.spares = it.spares.saturating_sub(1),
    |it| {
        it.founders = if it.founders > 3 { 3 } else { 1 };
        it.replicas = it.replicas.min(u32::try_from(it.founders).unwrap_or(1));
    },
    |it| {
        if it.fire_millis > 10_000 {
            it.fire_millis /= 2;
        }
    },
    |it| {
        let long = it.strikes.iter_mut().filter(|strike| strike.lasts_millis > 500);
        long.for_each(|strike| strike.lasts_millis /= 2);
    },
    |it| {
        let defaults = Options::default();
        it.heartbeat_millis = defaults.heartbeat_millis;
        it.election_millis = defaults.election_millis;
        it.tick_millis = defaults.tick_millis;
        it.link = defaults.link;
    },
];

#[cfg(test)]
mod tests;
