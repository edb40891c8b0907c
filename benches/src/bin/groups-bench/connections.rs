//! What a connection takes of the memory of a node.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use quorate_raft::tcp::{Mesh, MeshConfig, Service};
use quorate_raft::{Lane, Network};
use quorate_types::hello::{Hello, Protocol};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, DiskId, NodeId};
use tokio::net::TcpListener;

use crate::Outcome;
use crate::report::Connections;

/// Nodes that call one, each on all lanes. Few enough for an ordinary limit of open
/// files, though both ends of each connection are here.
const CALLERS: u64 = 100;
const LANES: [Lane; 4] = [Lane::Heartbeat, Lane::Data, Lane::Snapshot, Lane::Request];
const CHANNEL: u8 = 1;
const CALLED: NodeId = NodeId(0);
/// Calls at once.
const BURST: usize = 500;
const DEADLINE: Duration = Duration::from_secs(10);

struct Echo;

impl Service for Echo {
    fn handle(&self, _: NodeId, _: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        Box::pin(std::future::ready(Ok(payload)))
    }
}

/// Who a node of no cluster says that it is.
pub(crate) fn hello(node: NodeId) -> Hello {
    Hello {
        protocol: Protocol::Mesh,
        lane: 0,
        cluster: None,
        node,
        disk: DiskId::random(),
        incarnation: 1,
        address: Blob::new(),
    }
}

/// Opens connections, uses each, and sees what they have taken.
pub(crate) fn run() -> Outcome<Connections> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let called = Mesh::new(MeshConfig::default(), || hello(CALLED), |_| None);
        called.listen(listener, Arc::new(Echo), Arc::new(|_: &Hello| Ok(hello(CALLED))));
        let caller = |id: u64| {
            let address = address.clone();
            let address = move |_: NodeId| Some(address.clone());
            Mesh::new(MeshConfig::default(), move || hello(NodeId(id)), address)
        };
        let callers: Vec<Mesh> = (1..=CALLERS).map(caller).collect();
        // The first brings along what is not a connection's.
        let (first, others) = callers.split_first().ok_or("no callers")?;
        use_all(first).await?;
        let before = quorate_benches::resident_bytes("self");
        for caller in others {
            use_all(caller).await?;
        }
        let after = quorate_benches::resident_bytes("self");
        let ends = others.len() as u64 * LANES.len() as u64 * 2;
        let taken = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        Ok(Connections { count: ends / 2, bytes_each_end: taken.map(|taken| taken / ends) })
    })
}

/// Has each connection carry as much at once as makes its buffers as large as they get,
/// and then a little.
async fn use_all(caller: &Mesh) -> Outcome {
    for lane in LANES {
        for burst in [BURST, 1] {
            let calls = (0..burst).map(|_| {
                let payload = Bytes::from(vec![7; 256]);
                Network::call(caller, CALLED, lane, CHANNEL, payload, DEADLINE)
            });
            try_join_all(calls).await?;
        }
    }
    Ok(())
}
