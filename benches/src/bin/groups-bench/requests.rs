//! What clients ask of a group over a connection: puts, and linearizable reads.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_engine::{Engine, Space};
use quorate_raft::Group;
use quorate_raft::tcp::Service;
use quorate_types::runtime::BoxFuture;
use quorate_types::{NodeId, ShardId};

use crate::rows;

/// Where a node's mesh expects them.
pub(crate) const CHANNEL: u8 = 2;
/// How long a put may take.
const DEADLINE: Duration = Duration::from_secs(5);
const PUT: u8 = b'p';
const GET: u8 = b'g';

/// A request to write a row, which is answered with nothing.
pub(crate) fn put(row: u64, value: &[u8]) -> Bytes {
    let command = rows::write(row, value);
    let mut request = BytesMut::with_capacity(1 + command.len());
    request.put_u8(PUT);
    request.put_slice(&command);
    request.freeze()
}

/// A request to read one, which is answered with its value.
pub(crate) fn get(row: u64) -> Bytes {
    let mut request = BytesMut::with_capacity(9);
    request.put_u8(GET);
    request.put_u64(row);
    request.freeze()
}

/// Answers them, on the node that leads the group.
pub(crate) struct Requests {
    group: Group,
    engine: Arc<dyn Engine>,
}

impl Requests {
    pub(crate) const fn new(group: Group, engine: Arc<dyn Engine>) -> Self {
        Self { group, engine }
    }
}

impl Service for Requests {
    fn handle(
        &self,
        _: NodeId,
        channel: u8,
        mut request: Bytes,
    ) -> BoxFuture<Result<Bytes, Bytes>> {
        let (group, engine) = (self.group.clone(), Arc::clone(&self.engine));
        Box::pin(async move {
            let kind = if request.has_remaining() { request.get_u8() } else { 0 };
            match (channel, kind) {
                (CHANNEL, PUT) => {
                    let put = group.propose(request, DEADLINE).await;
                    put.map(|_| Bytes::new()).map_err(|error| error.to_string().into())
                }
                (CHANNEL, GET) => {
                    read(&group, &*engine, &request).await.map_err(|error| error.into())
                }
                _ => Err(Bytes::from_static(b"neither a put nor a get")),
            }
        })
    }
}

async fn read(group: &Group, engine: &dyn Engine, row: &[u8]) -> Result<Bytes, String> {
    let confirmed = group.read_index().await.map_err(|error| error.to_string())?;
    group.wait_applied(confirmed.index).await.map_err(|error| error.to_string())?;
    let shard = ShardId(group.id().0);
    let value = engine.get(shard, Space::Data, row).map_err(|error| error.to_string())?;
    Ok(value.map(|value| value.0).unwrap_or_default())
}
