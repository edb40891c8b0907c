//! What must be so once nothing is under way: the second half of liveness.

use std::collections::BTreeMap;

use quorate::types::ShardId;

use super::cluster::Cluster;
use super::ledger::Ledger;
use super::operators::soon;
use super::options::Options;

/// What a shard keeps only while a transaction waits or another shard may ask,
/// and what the sequencer keeps only while a shard has not taken it.
const PASSING: [(u8, &str); 3] = [
    (b'p', "transactions that wait"),
    (b'o', "contributions for other shards"),
    (b'l', "slices for shards"),
];
/// Entries beyond its limits that a log may hold: a purge is due with the next
/// entry that is applied, and one that a follower still reads may wait.
const LOG_SLACK_ENTRIES: u64 = 300;

/// Waits until nodes and what taps see of them have come to rest, and notes
/// what does not.
pub(super) async fn at_rest(cluster: &Cluster) {
    as_ordered(cluster).await;
    if let Err(instead) = soon(|| nodes_at_floor(cluster)).await {
        cluster.find("queues come to their floor", instead);
    }
    let Some(ledger) = cluster.ledger() else { return };
    if let Err(instead) = soon(|| at_floor(cluster, ledger)).await {
        cluster.find("queues come to their floor", instead);
    }
}

/// Waits until all that was ordered is done and every replica is where it
/// should be. (What is remembered of it goes later: an idle sequencer takes its
/// time.)
pub(super) async fn as_ordered(cluster: &Cluster) {
    let Some(ledger) = cluster.ledger() else { return };
    if let Err(instead) = soon(|| ledger.homes()).await {
        cluster.find("M2", instead);
    }
    if let Err(instead) = soon(|| ledger.content()).await {
        cluster.find("O8", instead);
    }
}

fn at_floor(cluster: &Cluster, ledger: &Ledger) -> Result<(), String> {
    if let Some((shard, millis)) = ledger.longest_open() {
        return Err(format!("a transaction waits in {shard} for {millis} ms"));
    }
    let rows: BTreeMap<(ShardId, u8), usize> = ledger.system_rows();
    for (tag, what) in PASSING {
        let kept = rows.iter().find(|((_, of), count)| *of == tag && **count > 0);
        if let Some(((shard, _), count)) = kept {
            return Err(format!("{shard} keeps {count} {what}"));
        }
    }
    let longest = longest_log(&cluster.options);
    let lengths = ledger.log_lengths();
    let long = lengths.iter().find(|(_, length)| **length as u64 > longest);
    long.map_or(Ok(()), |((node, group), length)| {
        Err(format!("the log of {group} on {node} has {length} entries, of {longest} at most"))
    })
}

/// What each node says of itself, which needs no taps.
fn nodes_at_floor(cluster: &Cluster) -> Result<(), String> {
    let longest = longest_log(&cluster.options);
    for (_, node) in cluster.running().filter_map(|place| cluster.node(place)) {
        let (raft, _) = node.raft_metrics();
        let under_way = [
            ("proposals under way", raft.proposals_open),
            ("snapshots that are sent", raft.snapshots_sending),
            ("snapshots that are received", raft.snapshots_receiving),
        ];
        let (_, gauges) = node.transactions();
        let held = gauges.named().map(|(what, count)| (what, count as u64));
        let kept = held.into_iter().chain(under_way).find(|(_, count)| *count > 0);
        if let Some((what, count)) = kept {
            return Err(format!("{} keeps {count} {what}", node.id()));
        }
        let length = raft.log_entries_longest;
        if length > longest {
            let id = node.id();
            return Err(format!("a log on {id} has {length} entries, of {longest} at most"));
        }
    }
    Ok(())
}

/// The most entries that a log may hold once nothing is under way.
fn longest_log(options: &Options) -> u64 {
    // A purge that had to wait is asked for again after half as many entries.
    let due = options.purge_after_entries + options.purge_after_entries / 2;
    due + options.purge_keeps_entries + LOG_SLACK_ENTRIES
}
