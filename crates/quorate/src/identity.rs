//! Who this directory is: read before anything else, written before anything
//! that depends on it.

use std::sync::Arc;

use quorate_types::codec::{self, CodecError};
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::{ClusterId, DiskId, NodeId};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::error::NodeError;

const FILE: &str = "identity";
const VERSION: u8 = 1;
/// The file's fixed size: `[len u32 BE][sealed row][zeroes]`.
const FILE_BYTES: usize = 512;

/// The identity of a node's directory.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub(crate) struct Identity {
    /// The node the directory was made for.
    pub(crate) node: NodeId,
    /// Drawn when the directory was first opened.
    pub(crate) disk: DiskId,
    /// The cluster, once joined or bootstrapped.
    pub(crate) cluster: Option<ClusterId>,
    /// Counts the lives of the process on this disk.
    pub(crate) incarnation: u64,
    /// No hybrid timestamp at or above this was drawn in an earlier life.
    pub(crate) clock_millis: u64,
}

/// The identity's file, which the node holds (and so locks) for its whole life.
#[derive(Debug)]
pub(crate) struct IdentityFile {
    file: Arc<dyn DiskFile>,
    identity: Identity,
}

impl IdentityFile {
    /// Opens the directory's identity, drawing one when the directory is new,
    /// and counts a new life.
    pub(crate) fn open(disk: &Arc<dyn Disk>, node: NodeId) -> Result<Self, NodeError> {
        let file = disk.open(FILE).map_err(NodeError::Disk)?;
        let identity = match read(&file)? {
            Some(found) if found.node != node => {
                return Err(NodeError::ForeignDirectory { found: found.node, asked: node });
            }
            Some(found) => found,
            None => Identity {
                node,
                disk: DiskId::random(),
                cluster: None,
                incarnation: 0,
                clock_millis: 0,
            },
        };
        let mut opened = Self { file, identity };
        opened.change(|identity| identity.incarnation += 1)?;
        Ok(opened)
    }

    /// The identity.
    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Changes the identity durably. The file is one sector, so that a write
    /// that is cut off leaves the old or the new identity.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), NodeError> {
        let mut identity = self.identity.clone();
        change(&mut identity);
        let row = codec::seal_row(FILE.as_bytes(), VERSION, &codec::encode(&identity));
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend_from_slice(&u32::try_from(row.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&row);
        debug_assert!(bytes.len() <= FILE_BYTES, "invariant: an identity fits a sector");
        bytes.resize(FILE_BYTES, 0);
        self.file.write(0, &bytes).map_err(NodeError::Disk)?;
        self.file.sync().map_err(NodeError::Disk)?;
        self.identity = identity;
        Ok(())
    }
}

/// `None` for a file that was created and cut off before its first write.
fn read(file: &Arc<dyn DiskFile>) -> Result<Option<Identity>, NodeError> {
    if file.is_empty().map_err(NodeError::Disk)? {
        return Ok(None);
    }
    let damaged = |source| NodeError::Damaged { file: FILE, source };
    let mut bytes = vec![0; FILE_BYTES];
    file.read(0, &mut bytes).map_err(NodeError::Disk)?;
    let row = bytes
        .split_first_chunk::<4>()
        .and_then(|(len, rest)| rest.get(..u32::from_be_bytes(*len) as usize))
        .ok_or(damaged(CodecError::Truncated(bytes.len())))?;
    let (_, payload) = codec::open_row(FILE.as_bytes(), VERSION, row).map_err(damaged)?;
    codec::decode(payload).map(Some).map_err(damaged)
}
