#![doc = include_str!("../README.md")]

mod admin;
mod backend;
pub mod cli;
mod commands;
mod gateway;
mod metrics;
mod procedures;
mod raft_metrics;
mod resp;
mod serve;
mod wiring;

pub use admin::{
    ADMIN_BODY_BYTES_MAX, Admin, AdminError, AdminFuture, DrainStatus, MigrationInfo, MoveRequest,
    NodeInfo, Operation, ReplicaInfo, ShardInfo, SplitRequest, StatusInfo, TransferRequest,
    router as admin_router, serve as serve_admin,
};
pub use backend::{Backend, BackendError, BackendInfo, KeyPage};
pub use commands::{
    Condition, ExpireCondition, Expiry, Op, Program, ProgramError, SLOTS, SetReply, TimeUnit,
    Watch, partition_key, slot_start, unpartition_key,
};
pub use gateway::{Gateway, GatewayLimits, LimitError};
pub use metrics::Metrics;
pub use procedures::{KeyVersion, REDIS_PROCEDURE, RedisProcedures, Verdict, VerdictError};
pub use resp::{Protocol, ProtocolError, Reply, Request, RequestDecoder, RequestLimits};
pub use serve::{Doors, ServeConfig, ServeError};
pub use wiring::start;
