//! What the test files share: a store in memory, a few procedures, a checker
//! of strict serializability, a deterministic model of a whole cluster and
//! random runs of it.

pub mod checker;
pub mod cluster;
pub mod procedures;
pub mod random;
pub mod store;

use quorate_types::{Blob, ClientId, Epoch, KeyRange, RequestId, ShardEpoch, ShardId};

use quorate_calvin::{MapShard, ShardMap};

/// A key or value from text.
pub fn blob(text: &str) -> Blob {
    Blob::from(text)
}

/// Keys from text.
pub fn blobs(texts: &[&str]) -> Vec<Blob> {
    texts.iter().map(|text| blob(text)).collect()
}

/// A request of a numbered client that acknowledges nothing.
pub fn request(client: u128, sequence: u64) -> RequestId {
    RequestId { client: ClientId(client), sequence, birth: Epoch(0), ack_below: 0 }
}

/// A map whose shards 1, 2, .. are cut at the given keys.
pub fn map_cut_at(cuts: &[&str]) -> ShardMap {
    let mut shards = Vec::new();
    let mut start = Blob::new();
    for (number, cut) in cuts.iter().map(|cut| Some(blob(cut))).chain([None]).enumerate() {
        let range = KeyRange { start: start.clone(), end: cut.clone() };
        let shard = ShardId(number as u64 + 1);
        shards.push(MapShard { shard, range, epoch: ShardEpoch(1) });
        start = cut.unwrap_or_default();
    }
    ShardMap { version: 1, shards: shards.into() }
}
