//! The registry as a replicated state machine: entries of a log in, rows of a
//! store out.

use bytes::Bytes;
use parking_lot::Mutex;
use quorate_types::group_log::GroupMachine;
use quorate_types::{Blob, KeyRange};

use crate::error::MetaError;
use crate::ports::{Mutations, Rows};
use crate::registry::Registry;
use crate::view::ClusterView;

/// Rows that are read at a time when a replica starts.
const PAGE_ROWS_MAX: usize = 4_096;

/// Told of every view that is on disk.
pub type OnChange = Box<dyn Fn(&ClusterView) + Send>;

/// A registry over its rows. After an error it must not go on: memory may be
/// ahead of the rows until [`GroupMachine::reload`].
pub struct RegistryMachine {
    rows: Box<dyn Rows>,
    registry: Mutex<Registry>,
    on_change: OnChange,
}

impl RegistryMachine {
    /// Loads the rows that are there and shows them.
    ///
    /// # Errors
    /// [`MetaError::Store`], or what [`Registry::load`] finds in the rows.
    pub fn open(rows: Box<dyn Rows>, on_change: OnChange) -> Result<Self, MetaError> {
        let machine = Self { rows, registry: Mutex::default(), on_change };
        machine.load()?;
        Ok(machine)
    }

    fn load(&self) -> Result<(), MetaError> {
        let mut rows = Vec::new();
        let mut range = KeyRange::all();
        loop {
            let (page, more) = self.rows.scan(&range, PAGE_ROWS_MAX).map_err(MetaError::Store)?;
            if let Some((last, _)) = page.last() {
                range.start = Blob::from([last, &b"\0"[..]].concat());
            }
            rows.extend(page);
            if !more {
                break;
            }
        }
        let mut registry = self.registry.lock();
        *registry = Registry::load(rows)?;
        (self.on_change)(registry.view());
        Ok(())
    }
}

impl GroupMachine for RegistryMachine {
    type Halt = MetaError;

    /// Halts for whatever [`Registry::apply`] halts for, and with
    /// [`MetaError::Store`]. Nothing was shown then.
    fn apply(
        &self,
        entries: &[(u64, Option<&[u8]>)],
        host_row: Blob,
    ) -> Result<Vec<Bytes>, MetaError> {
        let Some((last, _)) = entries.last() else { return Ok(Vec::new()) };
        let mut registry = self.registry.lock();
        let mut mutations = Mutations::new();
        let mut outcomes = Vec::with_capacity(entries.len());
        for (index, command) in entries {
            let Some(command) = command else {
                outcomes.push(Bytes::new());
                continue;
            };
            let applied = registry.apply(*index, command)?;
            mutations.extend(applied.mutations);
            outcomes.push(applied.reply.encode());
        }
        self.rows.commit(*last, host_row, mutations).map_err(MetaError::Store)?;
        (self.on_change)(registry.view());
        Ok(outcomes)
    }

    fn reload(&self, _applied: u64) -> Result<(), MetaError> {
        self.load()
    }
}

impl std::fmt::Debug for RegistryMachine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryMachine")
            .field("applied", &self.registry.lock().view().applied())
            .finish()
    }
}
