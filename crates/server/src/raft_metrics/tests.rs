#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::{GroupStatus, HostMetrics, LogStats};
use quorate_types::{GroupId, ReplicaId};

use super::write;

fn status(group: u64) -> GroupStatus {
    GroupStatus {
        group: GroupId(group),
        replica: ReplicaId(group * 10),
        term: 7,
        leader: None,
        leading: true,
        last_log: Some(90),
        committed: None,
        applied: Some(80),
        purged: None,
        voters: Vec::new(),
        learners: Vec::new(),
        matched: BTreeMap::new(),
        fresh: BTreeSet::new(),
        outgoing: None,
        snapshot_bytes: (group == 5).then_some(4096),
        resting: false,
        halted: None,
    }
}

#[test]
fn every_line_is_a_type_or_a_number_of_it() {
    let mut log = LogStats { queued: 3, ..LogStats::default() };
    for micros in [100, 100, 900] {
        log.commit_micros.note(micros);
    }
    let raft = HostMetrics { groups: 2, log, ..HostMetrics::default() };
    let mut text = String::new();
    write(&mut text, &raft, &[status(4), status(5)]);
    let mut kind = "";
    for line in text.lines() {
        if let Some(named) = line.strip_prefix("# TYPE ") {
            kind = named.split(' ').next().unwrap();
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(name.starts_with(kind), "{line} is under {kind}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line} is missing:\n{text}");
    has("quorate_raft_groups 2");
    has("quorate_raft_log_queue 3");
    has("quorate_raft_log_commit_seconds_bucket{le=\"0.000128\"} 2");
    has("quorate_raft_log_commit_seconds_bucket{le=\"+Inf\"} 3");
    has("quorate_raft_log_commit_seconds_sum 0.0011");
    has("quorate_raft_group_term{group=\"5\"} 7");
    has("quorate_raft_group_applied{group=\"4\"} 80");
    has("quorate_raft_group_snapshot_bytes{group=\"5\"} 4096");
    assert!(!text.contains("committed{group=\"4\"}"), "it knows of none");
}
