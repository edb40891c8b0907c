//! Raft in the text that monitoring systems read.

use std::fmt::Write;

use quorate_raft::{GroupStatus, HostMetrics, Spread};

/// Appends what a node's host and its groups tell.
pub(crate) fn write(text: &mut String, raft: &HostMetrics, groups: &[GroupStatus]) {
    let gauges = [
        ("groups", raft.groups),
        ("groups_resting", raft.groups_resting),
        ("proposals_open", raft.proposals_open),
        ("snapshots_sending", raft.snapshots_sending),
        ("snapshots_receiving", raft.snapshots_receiving),
        ("log_entries_longest", raft.log_entries_longest),
        ("log_queue", raft.log.queued),
    ];
    for (name, value) in gauges {
        let _ = writeln!(text, "# TYPE quorate_raft_{name} gauge\nquorate_raft_{name} {value}");
    }
    let counters = [
        ("elections_won", raft.elections_won),
        ("proposals", raft.proposals),
        ("proposals_refused", raft.proposals_refused),
        ("reads", raft.reads),
        ("read_rounds", raft.read_rounds),
        ("heartbeats", raft.heartbeats),
        ("heartbeat_messages", raft.heartbeat_messages),
        ("flushes", raft.flushes),
        ("snapshot_bytes_sent", raft.snapshot_bytes_sent),
        ("snapshot_bytes_received", raft.snapshot_bytes_received),
        ("snapshots_sent", raft.snapshots_sent),
        ("snapshots_resumed", raft.snapshots_resumed),
        ("snapshots_failed", raft.snapshots_failed),
        ("snapshot_chunks_repeated", raft.snapshot_chunks_repeated),
        ("snapshot_chunks_damaged", raft.snapshot_chunks_damaged),
        ("log_payload_bytes", raft.log.payload_bytes),
        ("log_rewritten_bytes", raft.log.rewritten_bytes),
    ];
    for (name, value) in counters {
        let _ = writeln!(
            text,
            "# TYPE quorate_raft_{name}_total counter\nquorate_raft_{name}_total {value}"
        );
    }
    histogram(text, "log_commit_seconds", &raft.log.commit_micros, 1e6);
    histogram(text, "log_commit_entries", &raft.log.commit_entries, 1.0);
    each(text, "term", groups, |group| Some(group.term));
    each(text, "leading", groups, |group| Some(u64::from(group.leading)));
    each(text, "last_log", groups, |group| group.last_log);
    each(text, "committed", groups, |group| group.committed);
    each(text, "applied", groups, |group| group.applied);
    each(text, "snapshot_bytes", groups, |group| group.snapshot_bytes);
}

/// So many of what was counted are one of what is shown.
fn histogram(text: &mut String, name: &str, spread: &Spread, per: f64) {
    let _ = writeln!(text, "# TYPE quorate_raft_{name} histogram");
    for (bound, below) in spread.cumulative() {
        let bound = bound as f64 / per;
        let _ = writeln!(text, "quorate_raft_{name}_bucket{{le=\"{bound}\"}} {below}");
    }
    let (sum, count) = (spread.sum() as f64 / per, spread.count());
    let _ = writeln!(text, "quorate_raft_{name}_bucket{{le=\"+Inf\"}} {count}");
    let _ = writeln!(text, "quorate_raft_{name}_sum {sum}\nquorate_raft_{name}_count {count}");
}

fn each(
    text: &mut String,
    name: &str,
    groups: &[GroupStatus],
    value: impl Fn(&GroupStatus) -> Option<u64>,
) {
    let _ = writeln!(text, "# TYPE quorate_raft_group_{name} gauge");
    for group in groups {
        if let Some(value) = value(group) {
            let id = group.group.0;
            let _ = writeln!(text, "quorate_raft_group_{name}{{group=\"{id}\"}} {value}");
        }
    }
}

#[cfg(test)]
mod tests;
