#![doc = include_str!("../README.md")]

mod backend;
mod commands;
mod gateway;
mod metrics;
mod procedures;
mod resp;

pub use backend::{Backend, BackendError, BackendInfo, KeyPage};
pub use commands::{
    Condition, ExpireCondition, Expiry, Op, Program, ProgramError, SetReply, TimeUnit, Watch,
};
pub use gateway::{Gateway, GatewayLimits, LimitError};
pub use metrics::Metrics;
pub use procedures::{KeyVersion, REDIS_PROCEDURE, RedisProcedures, Verdict, VerdictError};
pub use resp::{Protocol, ProtocolError, Reply, Request, RequestDecoder, RequestLimits};
