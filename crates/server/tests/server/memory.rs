//! The reference backend: one map, one call after the other.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use quorate_calvin::{Access, Call, Inputs, Outcome, Procedures, Read};
use quorate_server::{Backend, BackendError, BackendInfo, KeyPage, RedisProcedures};
use quorate_types::env::SplitMix;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange};

#[derive(Default)]
pub(crate) struct Row {
    pub(crate) value: Option<Blob>,
    pub(crate) expires_millis: Option<u64>,
    pub(crate) version: u64,
}

#[derive(Default)]
pub(crate) struct Store {
    pub(crate) rows: BTreeMap<Blob, Row>,
    pub(crate) now_millis: u64,
    version: u64,
    seed: u64,
}

impl Store {
    fn live(&self, key: &Blob) -> Option<&Row> {
        let now = self.now_millis;
        let alive = |row: &&Row| {
            row.value.is_some() && row.expires_millis.is_none_or(|expires| expires > now)
        };
        self.rows.get(key).filter(alive)
    }

    fn live_in<'a>(&'a self, range: &'a KeyRange) -> impl Iterator<Item = (Blob, Blob)> + 'a {
        self.rows
            .keys()
            .filter(|key| range.contains(key) && self.live(key).is_some())
            .map(|key| (key.clone(), self.rows[key].value.clone().unwrap()))
    }

    pub(crate) fn inputs(&self, call: &Call) -> Inputs {
        let mut inputs = Inputs::default();
        for key in &call.footprint.reads {
            let live = self.live(key);
            inputs.reads.insert(
                key.clone(),
                Read {
                    key: key.clone(),
                    version: self.rows.get(key).map_or(0, |row| row.version),
                    value: live.and_then(|row| row.value.clone()),
                    expires_millis: live.and_then(|row| row.expires_millis),
                },
            );
        }
        // Two shards, so that digests are merged.
        let (left, right) = KeyRange::all().split_at(&quorate_server::slot_start(8_192)).unwrap();
        for access in &call.footprint.ranges {
            assert_eq!(access.range, KeyRange::all());
            for part in [&left, &right] {
                let mut rows = self.live_in(part);
                inputs.scans.push(RedisProcedures.scan(call, part, &mut rows));
            }
        }
        inputs
    }

    pub(crate) fn execute(&mut self, call: &Call) -> Blob {
        let inputs = self.inputs(call);
        self.seed += 1;
        let outcome = RedisProcedures.run(call, &inputs, self.now_millis, self.seed);
        check_footprint(call, &outcome);
        for clear in &outcome.clears {
            let doomed: Vec<Blob> = self.live_in(clear).map(|(key, _)| key).collect();
            for key in doomed {
                self.write(key, None, None);
            }
        }
        for write in outcome.writes {
            self.write(write.key, write.value, write.expires_millis);
        }
        outcome.result
    }

    fn write(&mut self, key: Blob, value: Option<Blob>, expires_millis: Option<u64>) {
        self.version += 1;
        self.rows.insert(key, Row { value, expires_millis, version: self.version });
    }
}

/// A procedure that writes outside its footprint would break isolation.
fn check_footprint(call: &Call, outcome: &Outcome) {
    let whole = call.footprint.ranges.iter().any(|range| range.access == Access::Write);
    assert!(outcome.clears.is_empty() || whole, "clears outside the footprint");
    for write in &outcome.writes {
        let named = call.footprint.writes.contains(&write.key);
        assert!(whole || named, "{:?} is written outside the footprint", write.key);
    }
}

/// How the next calls end instead of being executed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Refuse,
    Unknown,
}

/// How keys are listed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listing {
    Whole,
    /// Never.
    Silent,
    /// As if the first slot had no end.
    Endless,
}

pub(crate) struct MemoryBackend {
    pub(crate) store: Arc<Mutex<Store>>,
    pub(crate) serving: AtomicBool,
    pub(crate) fault: Mutex<Option<Fault>>,
    pub(crate) listing: Mutex<Listing>,
    /// Where pages of keys end, as they do where a shard does.
    pub(crate) borders: Mutex<Vec<Blob>>,
    /// Calls so far.
    pub(crate) calls: AtomicU64,
    /// Calls under way, and the most there ever were at a time.
    pub(crate) running: Arc<AtomicU64>,
    pub(crate) running_max: Arc<AtomicU64>,
    /// Draws how long a call is under way before it takes effect.
    chance: Mutex<SplitMix>,
    pub(crate) delay_steps_max: AtomicU64,
}

impl MemoryBackend {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            store: Arc::new(Mutex::new(Store { now_millis: 1_000_000, ..Store::default() })),
            serving: AtomicBool::new(true),
            fault: Mutex::new(None),
            listing: Mutex::new(Listing::Whole),
            borders: Mutex::new(vec![quorate_server::slot_start(8_192)]),
            calls: AtomicU64::new(0),
            running: Arc::default(),
            running_max: Arc::default(),
            chance: Mutex::new(SplitMix::new(7)),
            delay_steps_max: AtomicU64::new(0),
        })
    }

    pub(crate) fn advance(&self, millis: u64) {
        self.store.lock().now_millis += millis;
    }

    fn delay_steps(&self) -> u64 {
        use quorate_types::env::Rng;
        match self.delay_steps_max.load(Ordering::Relaxed) {
            0 => 0,
            max => self.chance.lock().next_u64() % max,
        }
    }
}

impl Backend for MemoryBackend {
    fn execute(&self, call: Call) -> BoxFuture<Result<Blob, BackendError>> {
        match *self.fault.lock() {
            Some(Fault::Refuse) => {
                return Box::pin(async { Err(BackendError::Refused("no quorum".into())) });
            }
            Some(Fault::Unknown) => return Box::pin(async { Err(BackendError::Unknown) }),
            None => {}
        }
        self.calls.fetch_add(1, Ordering::SeqCst);
        let steps = self.delay_steps();
        let store = Arc::clone(&self.store);
        let (running, running_max) = (Arc::clone(&self.running), Arc::clone(&self.running_max));
        Box::pin(async move {
            let now = running.fetch_add(1, Ordering::SeqCst) + 1;
            running_max.fetch_max(now, Ordering::SeqCst);
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
            let result = store.lock().execute(&call);
            running.fetch_sub(1, Ordering::SeqCst);
            Ok(result)
        })
    }

    fn scan_keys(&self, from: Blob, limit: usize) -> BoxFuture<Result<KeyPage, BackendError>> {
        let store = self.store.lock();
        // Small pages, so that several are needed.
        let limit = limit.min(7);
        let borders = self.borders.lock();
        let border = borders.iter().filter(|border| **border > from).min().cloned();
        let shard = KeyRange { start: from, end: border.clone() };
        let mut keys: Vec<Blob> = store.live_in(&shard).map(|(key, _)| key).collect();
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = match keys.last() {
            Some(last) if more => Some([&last[..], &[0]].concat().into()),
            _ => border,
        };
        let listing = *self.listing.lock();
        Box::pin(async move {
            match listing {
                Listing::Whole => Ok(KeyPage { keys, next }),
                Listing::Silent => std::future::pending().await,
                Listing::Endless => {
                    tokio::task::yield_now().await;
                    let next = Some([&shard.start[..], &[0]].concat().into());
                    Ok(KeyPage { keys: vec![shard.start], next })
                }
            }
        })
    }

    fn serving(&self) -> bool {
        self.serving.load(Ordering::Relaxed)
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            node: 1,
            cluster: "reference".into(),
            gateway: "127.0.0.1:6401".into(),
            nodes: 1,
            shards: 2,
        }
    }
}
