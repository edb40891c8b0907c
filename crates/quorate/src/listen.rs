//! Who is welcome at the node's one listener, and who is believed where the
//! mesh connects.

use std::sync::Arc;

use bytes::BytesMut;
use quorate_gossip::Driver;
use quorate_meta::NodeState;
use quorate_raft::tcp::{AddressBook, Reception};
use quorate_types::hello::{Hello, Protocol};
use quorate_types::{ClusterId, NodeId};
use tokio::net::TcpStream;

use crate::directory::Directory;
use crate::network::Introduce;

/// Finds nodes for the mesh, and keeps it from talking to impostors.
#[derive(Clone)]
pub(crate) struct Book {
    pub(crate) directory: Arc<Directory>,
    pub(crate) introduce: Introduce,
}

impl AddressBook for Book {
    fn address(&self, node: NodeId) -> Option<String> {
        self.directory.address(node)
    }

    fn judge(&self, theirs: &Hello) -> Result<(), String> {
        judge(&self.directory, (self.introduce)().cluster, theirs)
    }
}

/// Receives the mesh's callers and gossip's.
pub(crate) struct Door {
    pub(crate) book: Book,
    pub(crate) gossip: Arc<Driver>,
}

impl Reception for Door {
    fn judge(&self, theirs: &Hello) -> Result<Hello, String> {
        self.book.judge(theirs)?;
        match theirs.protocol {
            Protocol::Mesh => Ok(Hello { protocol: Protocol::Mesh, ..(self.book.introduce)() }),
            Protocol::Gossip => self.gossip.judge(theirs),
        }
    }

    fn welcomed(&self, theirs: &Hello) {
        if let Ok(address) = std::str::from_utf8(&theirs.address) {
            self.book.directory.learn_address(theirs.node, address);
        }
    }

    fn take_over(&self, stream: TcpStream, theirs: &Hello) -> Result<(), String> {
        self.gossip.serve(stream, theirs, BytesMut::new())
    }
}

/// Decides about a peer by what the metadata knows of it.
fn judge(directory: &Directory, ours: Option<ClusterId>, theirs: &Hello) -> Result<(), String> {
    if let (Some(ours), Some(theirs)) = (ours, theirs.cluster)
        && ours != theirs
    {
        return Err(format!("this node belongs to cluster {ours}, not {theirs}"));
    }
    let view = directory.view();
    if let Some(known) = view.node(theirs.node) {
        if known.disk != theirs.disk {
            let node = theirs.node;
            return Err(format!(
                "{node} joined with another disk; this disk is not the one that joined; join \
                 under a new id"
            ));
        }
        if known.state == NodeState::Removed {
            return Err(format!("{} was removed; join under a new id", theirs.node));
        }
    }
    Ok(())
}
