//! Whose a store's file is: a directory holds several stores that only make
//! sense together. A log without its engine, or the log of another node, would
//! silently forget what this node has acknowledged.

use crate::DiskId;
use crate::codec::{self, CodecError};
use crate::sometimes;

/// The newest format of the mark.
const FORMAT: u8 = 1;
/// What the mark's checksum covers besides the mark.
const KEY: &[u8] = b"owner";

/// The directory that a store's file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The directory's identity.
    pub disk: DiskId,
    /// Whether the store was created in an earlier life: then a file without
    /// a mark is not the one that was created.
    pub has_store: bool,
}

/// Why a file is not the owner's.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The file was lost, or was replaced by an empty one.
    #[error("the file that this directory had is gone; put it back")]
    Lost,
    /// The file comes from another directory.
    #[error(
        "the file belongs to disk {found}, this directory is disk {expected}; put its own file back"
    )]
    Foreign {
        /// Whose the file is.
        found: DiskId,
        /// Whose it should be.
        expected: DiskId,
    },
    /// The mark cannot be read.
    #[error("the mark of the file's owner is damaged: {0}")]
    Damaged(#[from] CodecError),
}

impl Owner {
    /// The mark to store in a file when it is created.
    #[must_use]
    pub fn mark(&self) -> bytes::Bytes {
        codec::seal_row(KEY, FORMAT, &codec::encode(&self.disk))
    }

    /// Judges the mark that was found in a file; `Ok(false)` means that the
    /// file is new and is to be marked before anything else is stored.
    ///
    /// # Errors
    /// [`OwnerError`]; then the file must not be used.
    pub fn judge(&self, mark: Option<&[u8]>) -> Result<bool, OwnerError> {
        let Some(mark) = mark else {
            sometimes!("a store is missed", self.has_store);
            return if self.has_store { Err(OwnerError::Lost) } else { Ok(false) };
        };
        let (_, payload) = codec::open_row(KEY, FORMAT, mark)?;
        let found: DiskId = codec::decode(payload)?;
        if found == self.disk {
            return Ok(true);
        }
        sometimes!("a store of another directory is refused");
        Err(OwnerError::Foreign { found, expected: self.disk })
    }
}
