//! Who is welcome at the node's one listener, and who is believed where the
//! mesh connects.

use std::sync::Arc;

use bytes::BytesMut;
use quorate_gossip::Driver;
use quorate_raft::tcp::{AddressBook, Reception};
use quorate_types::NodeId;
use quorate_types::hello::{Hello, Protocol};
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
        self.directory.view().judge((self.introduce)().cluster, theirs)
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
