//! Who a node's directory belongs to: read before anything else is, and
//! written before anything that depends on it.

use std::io;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use quorate_types::codec::{self, CodecError};
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::hello::{Hello, Protocol};
use quorate_types::owner::Owner;
use quorate_types::{Blob, ClusterId, DiskId, NodeId};
use zerompk::{FromMessagePack, ToMessagePack};

const FILE: &str = "identity";
const VERSION: u8 = 1;
/// The file's fixed size: `[len u32 BE][sealed row][zeroes]`. One sector, so
/// that a write that is cut off leaves the old or the new identity.
const FILE_BYTES: usize = 512;

/// The identity of a node's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Identity {
    /// The node that the directory was made for.
    pub node: NodeId,
    /// Drawn when the directory was first opened.
    pub disk: DiskId,
    /// The cluster, once joined or founded.
    pub cluster: Option<ClusterId>,
    /// Counts the lives of the process on this disk.
    pub incarnation: u64,
    /// No hybrid timestamp at or above this was drawn in an earlier life.
    pub clock_millis: u64,
    /// Whether the node's log and engine were created: from then on their
    /// files must be there and be this disk's.
    pub has_stores: bool,
}

impl Identity {
    /// How the node introduces itself, listening at `address`.
    #[must_use]
    pub const fn hello(&self, protocol: Protocol, address: Blob) -> Hello {
        let Self { node, disk, cluster, incarnation, .. } = *self;
        Hello { protocol, lane: 0, cluster, node, disk, incarnation, address }
    }
}

/// Why a directory cannot be used under an identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written; for instance another process holds
    /// it.
    #[error("the node's directory cannot be used: {0}")]
    Disk(#[from] io::Error),
    /// The directory was made for another node.
    #[error(
        "the directory belongs to node {found}, not {asked}; start it with the id it was made for \
         or give node {asked} a directory of its own"
    )]
    Foreign {
        /// Whose it is.
        found: NodeId,
        /// Who asked.
        asked: NodeId,
    },
    /// There are stores, and nothing says whose.
    #[error(
        "{FILE} is empty or was lost, and {store} is there; put {FILE} back, or join the cluster \
         as a new node with an empty directory"
    )]
    Lost {
        /// One of them.
        store: String,
    },
    /// The file does not hold what was written.
    #[error("{FILE} is damaged ({0}); restore it, or join the cluster as a new node")]
    Damaged(#[from] CodecError),
}

/// The identity's file, which the node holds (and so locks) for its whole life.
#[derive(Debug)]
pub struct IdentityFile {
    file: Arc<dyn DiskFile>,
    is_new: bool,
    /// What is on the disk. Apart from the writer's lock, so that who reads it
    /// never waits for the disk.
    identity: RwLock<Identity>,
    writing: Mutex<()>,
}

impl IdentityFile {
    /// Opens the directory's identity in a new life, drawing one when the
    /// directory is new. Nothing is written: a node that is not welcome in
    /// its cluster, or whose stores are damaged, leaves the directory as it
    /// was. [`IdentityFile::claim`] and [`IdentityFile::begin`] write.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub fn open(disk: &dyn Disk, node: NodeId) -> Result<Self, IdentityError> {
        let file = disk.open(FILE)?;
        let found = read(&*file)?;
        if let Some(found) = found.filter(|found| found.node != node) {
            return Err(IdentityError::Foreign { found: found.node, asked: node });
        }
        let mut identity = found.unwrap_or_else(|| Identity {
            node,
            disk: DiskId::random(),
            cluster: None,
            incarnation: 0,
            clock_millis: 0,
            has_stores: false,
        });
        identity.incarnation = identity.incarnation.saturating_add(1);
        let identity = RwLock::new(identity);
        Ok(Self { file, is_new: found.is_none(), identity, writing: Mutex::default() })
    }

    /// Makes a new directory this identity's, durably, before these stores are
    /// created in it. A directory that has an identity is left as it is.
    ///
    /// # Errors
    /// [`IdentityError::Lost`] when one of the stores is there already, and
    /// [`IdentityError::Disk`].
    pub fn claim<'a>(
        &self,
        disk: &dyn Disk,
        stores: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), IdentityError> {
        if !self.is_new {
            return Ok(());
        }
        for store in stores {
            if disk.exists(store)? {
                return Err(IdentityError::Lost { store: store.to_owned() });
            }
        }
        self.change(|_| {})
    }

    /// Whose the directory's stores are.
    #[must_use]
    pub fn owner(&self) -> Owner {
        let identity = self.identity();
        Owner { disk: identity.disk, has_store: identity.has_stores }
    }

    /// Counts the life, durably, once the stores are open. Nothing that
    /// carries the incarnation may leave the node before, except to ask
    /// whether it is welcome.
    ///
    /// # Errors
    /// [`IdentityError::Disk`]
    pub fn begin(&self) -> Result<(), IdentityError> {
        self.change(|identity| identity.has_stores = true)
    }

    /// The identity of this life.
    #[must_use]
    pub fn identity(&self) -> Identity {
        *self.identity.read()
    }

    /// Binds the directory to a cluster, durably.
    ///
    /// # Errors
    /// [`IdentityError::Disk`]; the node must not act as a member then.
    pub fn adopt(&self, cluster: ClusterId) -> Result<(), IdentityError> {
        self.change(|identity| identity.cluster = Some(cluster))
    }

    /// Keeps the hybrid clock's mark, durably, before timestamps beyond it are
    /// used. A mark below the one that is kept changes nothing.
    ///
    /// # Errors
    /// [`IdentityError::Disk`].
    pub fn keep_clock(&self, high_water_millis: u64) -> Result<(), IdentityError> {
        if self.identity().clock_millis >= high_water_millis {
            return Ok(());
        }
        self.change(|kept| kept.clock_millis = kept.clock_millis.max(high_water_millis))
    }

    /// Memory changes only after the disk has.
    fn change(&self, change: impl FnOnce(&mut Identity)) -> Result<(), IdentityError> {
        let _writing = self.writing.lock();
        let mut identity = self.identity();
        change(&mut identity);
        let row = codec::seal_row(FILE.as_bytes(), VERSION, &codec::encode(&identity));
        let mut bytes = Vec::with_capacity(FILE_BYTES);
        bytes.extend_from_slice(&u32::try_from(row.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&row);
        debug_assert!(bytes.len() <= FILE_BYTES, "invariant: an identity fits a sector");
        bytes.resize(FILE_BYTES, 0);
        self.file.write(0, &bytes)?;
        self.file.sync()?;
        *self.identity.write() = identity;
        Ok(())
    }
}

/// `None` for a file that was created and cut off before its first write: a
/// crash may leave it empty, or with a length and none of its bytes.
fn read(file: &dyn DiskFile) -> Result<Option<Identity>, IdentityError> {
    let len = usize::try_from(file.len()?).unwrap_or(usize::MAX);
    let mut bytes = vec![0; len.min(FILE_BYTES)];
    file.read(0, &mut bytes)?;
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let row = Some(&bytes)
        .filter(|bytes| bytes.len() == FILE_BYTES)
        .and_then(|bytes| bytes.split_first_chunk::<4>())
        .and_then(|(len, rest)| rest.get(..u32::from_be_bytes(*len) as usize))
        .ok_or(CodecError::Truncated(bytes.len()))?;
    let (_, payload) = codec::open_row(FILE.as_bytes(), VERSION, row)?;
    Ok(Some(codec::decode(payload)?))
}
