//! Receiving a snapshot into spaces of its own.
//!
//! Staged spaces are born as garbage: with the first of their rows the commit
//! records them as such, and `install` takes that back in the commit in which
//! the shard begins to point at them. So whatever ends a staging early, the
//! collector finds what it left.

use std::any::Any;
use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use quorate_types::ShardId;
use quorate_types::runtime::BoxFuture;

use super::shared::{Command, Install, Reply, Shared, StagedSpaces};
use crate::chunk::Receiver;
use crate::error::EngineError;
use crate::port::{Mutation, Space, Staging};

pub(super) struct RedbStaging {
    shared: Arc<Shared>,
    shard: ShardId,
    spaces: StagedSpaces,
    receiver: Receiver,
    rows: u64,
    bytes: u64,
    is_installed: bool,
}

impl RedbStaging {
    pub(super) fn new(shared: Arc<Shared>, shard: ShardId) -> Self {
        let (data, system) = (shared.allocate_space(), shared.allocate_space());
        let spaces = StagedSpaces { data, system };
        let receiver = Receiver::default();
        Self { shared, shard, spaces, receiver, rows: 0, bytes: 0, is_installed: false }
    }

    /// The staging behind `staged`, if it can be installed as `shard`.
    pub(super) fn downcast(
        staged: Box<dyn Staging>,
        shared: &Arc<Shared>,
        shard: ShardId,
    ) -> Result<Self, EngineError> {
        let bad = |problem| EngineError::BadStaging(shard, problem);
        let foreign = bad("it is of another engine");
        let staged = staged.into_any().downcast::<Self>().map_err(|_| foreign.clone())?;
        if !Arc::ptr_eq(&staged.shared, shared) {
            return Err(foreign);
        }
        if staged.shard != shard {
            return Err(bad("it is of another shard"));
        }
        if !staged.receiver.is_complete() {
            return Err(bad("it is not complete"));
        }
        Ok(*staged)
    }

    /// The command that installs it; `None` before the first chunk.
    pub(super) fn install(mut self, system: Vec<Mutation>, reply: Reply<()>) -> Option<Command> {
        let header = self.receiver.header()?.clone();
        self.is_installed = true;
        let (shard, staging, rows, bytes) = (self.shard, self.spaces, self.rows, self.bytes);
        Some(Command::Install(Install { shard, staging, header, rows, bytes, system, reply }))
    }
}

impl Staging for RedbStaging {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<Result<(), EngineError>> {
        let (space, rows): (Space, _) = match self.receiver.accept(&chunk) {
            Ok(accepted) => accepted,
            Err(error) => return Box::pin(ready(Err(error.into()))),
        };
        self.rows += rows.len() as u64;
        self.bytes += rows.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>();
        let staging = self.spaces;
        self.shared.request(|reply| Command::Stage { staging, space, rows, reply })
    }

    fn index(&self) -> Option<u64> {
        self.receiver.header().map(|header| header.index)
    }

    fn is_complete(&self) -> bool {
        self.receiver.is_complete()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any + Send> {
        self
    }
}

impl Drop for RedbStaging {
    fn drop(&mut self) {
        if !self.is_installed {
            self.shared.submit(Command::Abandon { staging: self.spaces });
        }
    }
}
