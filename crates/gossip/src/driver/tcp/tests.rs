//! The transport over TCP against the suite of its port.

use std::sync::Arc;

use quorate_types::hello::{Hello, Protocol};
use quorate_types::{Blob, ClusterId, DiskId, NodeId, runtime};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Tcp;
use crate::config::TcpConfig;
use crate::conformance::{End, transport_suite};

/// Frames that wait for a node: few, so that a flood fills it.
const INBOUND_MAX: usize = 64;

async fn end(node: NodeId) -> End {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hello = Hello {
        protocol: Protocol::Gossip,
        lane: 0,
        cluster: Some(ClusterId(7)),
        node,
        disk: DiskId(u128::from(node.0)),
        incarnation: 1,
        address: Blob::from(address.as_str()),
    };
    let (sender, inbound) = mpsc::channel(INBOUND_MAX);
    let tcp = Arc::new(Tcp::new(hello, TcpConfig::default(), sender));
    drop(runtime::spawn(Arc::clone(&tcp).listen(listener, Arc::new(|_: &Hello| Ok(())))));
    End { transport: tcp, address, inbound }
}

#[tokio::test]
async fn the_transport_over_tcp_conforms() {
    transport_suite(|nodes| async move {
        let mut ends = Vec::new();
        for node in nodes {
            ends.push(end(node).await);
        }
        // Bound and let go again: nobody is there.
        let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (ends, free.local_addr().unwrap().to_string())
    })
    .await;
}
