//! What must hold when the dust has settled.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::admin::{Admin, MigrationView, ShardView};
use super::cluster::Cluster;
use super::interrupt::{Interrupt, Wait};
use super::resp::{Connection, Reply};
use super::workload::account;
use crate::Outcome;

/// How long one node may take to answer what it is asked here.
const ANSWERS_MAX: Duration = Duration::from_secs(30);

/// How long replicas may take to reach the same index once nobody writes.
const AGREEMENT_MAX: Duration = Duration::from_secs(20);

/// How long placement may take to end what it has begun.
const REST_MAX: Duration = Duration::from_secs(30);

const RETRY: Duration = Duration::from_millis(50);

/// Keys that are read before their answers are awaited.
const PIPELINE: usize = 200;

/// The sum of all accounts as a node tells it: one `MGET` over all shards, so
/// one strictly serializable transaction.
pub(super) fn total(gateway: SocketAddr, accounts: u64) -> Outcome<i64> {
    let names: Vec<String> = (0..accounts).map(account).collect();
    let request: Vec<&str> =
        std::iter::once("MGET").chain(names.iter().map(String::as_str)).collect();
    let replies = ask(gateway, &[&request])?;
    let [Reply::Array(balances)] = replies.as_slice() else {
        return Err(format!("MGET of all accounts was answered with {replies:?}").into());
    };
    if balances.len() != names.len() {
        return Err(format!("MGET of {accounts} accounts gave {}", balances.len()).into());
    }
    let mut sum = 0;
    for (name, balance) in names.iter().zip(balances) {
        match balance {
            Reply::Bulk(text) => sum += text.parse::<i64>().map_err(|e| format!("{name}: {e}"))?,
            other => return Err(format!("{name} reads {other:?}").into()),
        }
    }
    Ok(sum)
}

/// How many of the keys a node does not show with their own name as value,
/// and the first of them.
pub(super) fn missing(gateway: SocketAddr, keys: &[&str]) -> Outcome<Option<(usize, String)>> {
    let mut missing = Vec::new();
    for keys in keys.chunks(PIPELINE) {
        let requests: Vec<[&str; 2]> = keys.iter().map(|key| ["GET", *key]).collect();
        let requests: Vec<&[&str]> = requests.iter().map(<[&str; 2]>::as_slice).collect();
        let replies = ask(gateway, &requests)?;
        let wrong = keys
            .iter()
            .zip(&replies)
            .filter(|(key, reply)| !matches!(reply, Reply::Bulk(text) if text == *key));
        missing.extend(wrong.map(|(key, reply)| format!("{key} reads {reply:?}")));
    }
    let count = missing.len();
    Ok(missing.into_iter().next().map(|first| (count, first)))
}

/// Sends reading requests, and those again that are answered with "not now",
/// until each has its answer.
fn ask(gateway: SocketAddr, requests: &[&[&str]]) -> Outcome<Vec<Reply>> {
    let start = Instant::now();
    let mut answers: Vec<Option<Reply>> = vec![None; requests.len()];
    loop {
        let open = requests.iter().zip(&mut answers).filter(|(_, answer)| answer.is_none());
        let reason = match ask_once(gateway, open) {
            Ok(None) => return Ok(answers.into_iter().flatten().collect()),
            Ok(Some(reason)) => reason,
            Err(error) => error.to_string(),
        };
        if start.elapsed() >= ANSWERS_MAX {
            let seconds = ANSWERS_MAX.as_secs();
            return Err(format!("{gateway} gave no answer within {seconds} s: {reason}").into());
        }
        std::thread::sleep(RETRY);
    }
}

/// Sends requests and fills in their answers; why one is still open, if so.
fn ask_once<'a>(
    gateway: SocketAddr,
    requests: impl Iterator<Item = (&'a &'a [&'a str], &'a mut Option<Reply>)>,
) -> io::Result<Option<String>> {
    let mut connection = Connection::open(gateway)?;
    let mut open = Vec::new();
    for (request, answer) in requests {
        connection.push(request);
        open.push(answer);
    }
    let mut reason = None;
    for (answer, reply) in open.into_iter().zip(connection.finish()?) {
        match reply.not_executed() {
            Some(text) => reason = Some(text.to_owned()),
            None => *answer = Some(reply),
        }
    }
    Ok(reason)
}

/// Waits until no migration is under way: a replica that moves is compared
/// with nothing.
pub(super) fn rest(admin: &Admin, interrupt: &Interrupt) -> Outcome {
    interrupt.wait_until(&Wait::new("placement comes to rest", REST_MAX), || {
        Ok(admin.migrations().map_or_else(|error| Err(error.to_string()), |all| at_rest(&all)))
    })
}

fn at_rest(migrations: &[MigrationView]) -> Result<(), String> {
    let running = migrations.iter().filter(|migration| !migration.finished);
    let running: Vec<String> = running
        .map(|MigrationView { kind, group, phase, .. }| format!("{kind} of {group}: {phase}"))
        .collect();
    if running.is_empty() { Ok(()) } else { Err(running.join("; ")) }
}

/// What the agreement of replicas covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Agreed {
    /// Shards.
    pub(super) shards: usize,
    /// Replicas of them, each with the hash of the others at one index.
    pub(super) replicas: usize,
}

/// Asks every node for its own state hashes until all replicas of each shard
/// have shown the same hash at the same index. Nobody writes meanwhile.
///
/// # Errors
/// At once when two replicas differ at one index; when time is up otherwise.
pub(super) fn agreement(
    cluster: &Cluster,
    interrupt: &Interrupt,
    poll: Duration,
) -> Outcome<Agreed> {
    let mut hashes = Hashes::default();
    let wait = Wait { what: "state hashes agree", limit: AGREEMENT_MAX, poll };
    interrupt.wait_until(&wait, || {
        let mut views = Vec::new();
        for node in cluster.nodes() {
            match cluster.admin(node).shards() {
                Ok(shards) => views.push((node, shards)),
                Err(error) => return Ok(Err(error.to_string())),
            }
        }
        for (node, shards) in &views {
            hashes.note(*node, shards)?;
        }
        Ok(hashes.judge(&views))
    })
}

/// What replicas have shown so far: shard -> index -> hash, and who showed
/// it. Kept over several rounds, because replicas may pass the same index at
/// different times.
#[derive(Debug, Default)]
struct Hashes(BTreeMap<(u64, u64), (String, BTreeSet<u64>)>);

impl Hashes {
    /// Takes in what a node says about its own replicas.
    fn note(&mut self, node: u64, shards: &[ShardView]) -> Outcome {
        for shard in shards {
            let (Some(applied), Some(hash)) = (shard.applied, &shard.state_hash) else { continue };
            let new = || (hash.clone(), BTreeSet::new());
            let (known, nodes) = self.0.entry((shard.id, applied)).or_insert_with(new);
            if known != hash {
                return Err(format!(
                    "shard {} differs at index {applied}: {hash} on node {node}, {known} on {nodes:?}",
                    shard.id
                )
                .into());
            }
            nodes.insert(node);
        }
        Ok(())
    }

    /// Whether every shard's replicas agree, by all nodes' views of who they
    /// are; why not yet, otherwise.
    fn judge(&self, views: &[(u64, Vec<ShardView>)]) -> Result<Agreed, String> {
        let mut replicas: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
        for (node, shards) in views {
            for shard in shards {
                let nodes: BTreeSet<u64> = shard.replicas.iter().map(|r| r.node).collect();
                if nodes.is_empty() {
                    return Err(format!("node {node} knows no replica of shard {}", shard.id));
                }
                let known = replicas.entry(shard.id).or_insert_with(|| nodes.clone());
                if *known != nodes {
                    let id = shard.id;
                    return Err(format!(
                        "shard {id} is on {known:?} or, says node {node}, {nodes:?}"
                    ));
                }
            }
        }
        for (shard, nodes) in &replicas {
            let mut shown = self.0.range((*shard, 0)..=(*shard, u64::MAX));
            if !shown.any(|(_, (_, shown))| nodes.is_subset(shown)) {
                return Err(format!("shard {shard}'s replicas on {nodes:?} show no common index"));
            }
        }
        match replicas.len() {
            0 => Err("no node knows a shard".to_owned()),
            shards => Ok(Agreed { shards, replicas: replicas.values().map(BTreeSet::len).sum() }),
        }
    }
}

#[cfg(test)]
mod tests;
