//! The limits of the gateway.

use quorate_calvin::limits::CALL_BYTES_MAX;
use serde::{Deserialize, Serialize};

use crate::resp::RequestLimits;

/// What clients may ask for. The section `[limits]` of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GatewayLimits {
    /// Most connections at a time; each costs a task and its buffers.
    pub connections_max: usize,
    /// Longest inline command: as in Redis.
    pub inline_bytes_max: usize,
    /// Longest single argument: a value travels in one log entry. At most
    /// 768 KiB, what the transaction layer takes.
    pub bulk_bytes_max: usize,
    /// Most arguments of a command: each key of a transaction is locked.
    pub elements_max: usize,
    /// Longest command, and longest transaction: it travels in one log entry.
    /// At most 768 KiB, what the transaction layer takes; there the keys count
    /// twice, as data and as names of locks.
    pub request_bytes_max: usize,
    /// Most commands between `MULTI` and `EXEC`.
    pub transaction_commands_max: usize,
    /// Most keys watched by a connection: each is a condition of its `EXEC`.
    pub watched_keys_max: usize,
    /// Most commands of a connection that are received and not answered.
    /// Beyond it nothing more is read: the client is held back and nothing is
    /// refused, however deep its pipeline.
    pub pipeline_commands_max: usize,
    /// Most bytes of such commands.
    pub pipeline_bytes_max: usize,
    /// Most commands of a connection that are executed at the same time.
    pub concurrency_max: usize,
    /// Most bytes of answers that a client has not taken yet. Beyond it
    /// nothing more is executed for it.
    pub reply_bytes_max: usize,
}

impl Default for GatewayLimits {
    fn default() -> Self {
        let request = RequestLimits::default();
        Self {
            connections_max: 10_000,
            inline_bytes_max: request.inline_bytes_max,
            bulk_bytes_max: request.bulk_bytes_max,
            elements_max: request.elements_max,
            request_bytes_max: request.request_bytes_max,
            transaction_commands_max: 10_000,
            watched_keys_max: 1_000,
            pipeline_commands_max: 10_000,
            pipeline_bytes_max: 8 << 20,
            concurrency_max: 256,
            reply_bytes_max: 8 << 20,
        }
    }
}

/// The largest bound that any size may be set to: offsets computed from
/// several of them stay far below an overflow.
const SIZE_MAX: usize = 1 << 30;

/// A limit that cannot be served.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("limits.{name} must be between 1 and {max}, not {value}")]
pub struct LimitError {
    name: &'static str,
    max: usize,
    value: usize,
}

impl GatewayLimits {
    /// What a single request may ask for.
    #[must_use]
    pub fn request(&self) -> RequestLimits {
        RequestLimits {
            inline_bytes_max: self.inline_bytes_max,
            bulk_bytes_max: self.bulk_bytes_max,
            elements_max: self.elements_max,
            request_bytes_max: self.request_bytes_max,
        }
    }

    /// Refuses what would stop every client.
    ///
    /// # Errors
    /// [`LimitError`] naming the first limit that is zero or too large.
    pub fn check(&self) -> Result<(), LimitError> {
        let all = [
            ("connections_max", self.connections_max, SIZE_MAX),
            ("inline_bytes_max", self.inline_bytes_max, SIZE_MAX),
            ("bulk_bytes_max", self.bulk_bytes_max, CALL_BYTES_MAX),
            ("elements_max", self.elements_max, SIZE_MAX),
            ("request_bytes_max", self.request_bytes_max, CALL_BYTES_MAX),
            ("transaction_commands_max", self.transaction_commands_max, SIZE_MAX),
            ("watched_keys_max", self.watched_keys_max, SIZE_MAX),
            ("pipeline_commands_max", self.pipeline_commands_max, SIZE_MAX),
            ("pipeline_bytes_max", self.pipeline_bytes_max, SIZE_MAX),
            ("concurrency_max", self.concurrency_max, SIZE_MAX),
            ("reply_bytes_max", self.reply_bytes_max, SIZE_MAX),
        ];
        match all.into_iter().find(|(_, value, max)| !(1..=*max).contains(value)) {
            Some((name, value, max)) => Err(LimitError { name, max, value }),
            None => Ok(()),
        }
    }
}
