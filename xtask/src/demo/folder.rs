//! Where a demo keeps its nodes' data and logs, and which ports it has.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use crate::Outcome;

/// Ports come in blocks, one for each demo. All lie below the range from which
/// systems take the ports of outgoing connections, so that a node that was
/// killed finds its own free again.
pub(super) const BLOCK_PORTS: u16 = 20;
const BLOCKS: u16 = 500;
const FIRST_PORT: u16 = 17_000;

/// Held for as long as a demo uses a folder, or looks for one.
const LOCK: &str = "lock";

/// A folder named after the first port of its block.
#[derive(Debug)]
pub(super) struct Folder {
    /// Where it is.
    pub(super) path: PathBuf,
    /// The first of its ports.
    pub(super) base_port: u16,
    _lock: File,
}

impl Folder {
    /// An empty folder below `home` and ports that nobody uses. What earlier
    /// demos left there goes, unless somebody uses it still.
    pub(super) fn claim(home: &Path) -> Outcome<Self> {
        std::fs::create_dir_all(home)?;
        // One demo at a time chooses and tidies up.
        let _choosing = locked(home)?;
        for leftover in leftovers(home)? {
            // What cannot be removed is in nobody's way.
            let _ = std::fs::remove_dir_all(leftover);
        }
        let base_port = free_block(home).ok_or("no block of free ports was found")?;
        let path = home.join(base_port.to_string());
        std::fs::create_dir(&path)?;
        let lock = locked(&path)?;
        Ok(Self { path, base_port, _lock: lock })
    }
}

/// The lock of a folder, as soon as nobody else has it.
fn locked(folder: &Path) -> Outcome<File> {
    let file = File::create(folder.join(LOCK))?;
    file.lock()?;
    Ok(file)
}

/// Folders of demos that nobody uses any more: no demo has the lock, and no
/// node that was left running listens.
fn leftovers(home: &Path) -> Outcome<Vec<PathBuf>> {
    let mut leftovers = Vec::new();
    for entry in std::fs::read_dir(home)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(base_port) = name.and_then(|name| name.parse().ok()) else { continue };
        // A file that cannot be opened is none that a demo has locked.
        let is_locked = File::open(path.join(LOCK)).is_ok_and(|file| file.try_lock().is_err());
        if !is_locked && is_free(base_port) {
            leftovers.push(path);
        }
    }
    Ok(leftovers)
}

/// The first port of a block in which nobody listens and that no folder has.
/// Where the search begins depends on the process, so that demos of two
/// workspaces rarely meet.
fn free_block(home: &Path) -> Option<u16> {
    let own = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap_or_default();
    let mut blocks = (own..BLOCKS).chain(0..own).map(|block| FIRST_PORT + block * BLOCK_PORTS);
    blocks.find(|base| is_free(*base) && !home.join(base.to_string()).exists())
}

fn is_free(base_port: u16) -> bool {
    let mut ports = base_port..base_port.saturating_add(BLOCK_PORTS);
    ports.all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
}

#[cfg(test)]
mod tests;
