#![doc = include_str!("../README.md")]

mod client;
mod command;
#[cfg(feature = "conformance")]
pub mod conformance;
mod dedup;
pub mod kv;
pub mod limits;
mod lock;
mod ports;
mod procedure;
mod reply_gate;
mod router;
pub mod sequencer;
mod service;
pub mod shard;
mod store;
mod wire;

pub use client::{Client, ClientConfig, ExecuteError, Session};
pub use command::*;
pub use lock::{LockSet, LockTable, Place};
pub use ports::{
    CallError, Destination, GroupLog, GroupMachine, Leadership, Peers, ProposeError, ReadIndex,
    Route, Router, SequencerRoute,
};
pub use procedure::{
    Access, Call, Footprint, Inputs, Outcome, Procedures, RangeAccess, Read, Rows, Write,
};
pub use reply_gate::ReplyGate;
pub use router::{Allocations, HintedRouter};
pub use service::{
    ChangeError, ChangeOrder, Forked, Gauges, InitialMap, NodeServices, OnFork, Purpose,
    SequencerReplica, SequencerService, ServiceConfig, ShardReplica, ShardService, Wire, WirePeers,
    order_change,
};
pub use store::{Fork, Space, Store, StoreError, View, WriteSet};
pub use wire::{Execute, PeerMessage, Reply, Request};
