//! A node whose disk is full: its directory moves to a small file system where
//! one can be mounted, otherwise no file of its may grow. It must halt, say
//! why, and lose nothing that was acknowledged.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate_types::env::SplitMix;

use super::strikes::{Effect, Striker, pick};
use crate::cluster::Housing;
use crate::resp::{Client, Words, words};
use crate::wait::eventually;

/// What a node is left to write, once its files lie there.
const ROOM_BYTES: u64 = 6 << 20;
/// While files are copied a small file system may be so large.
const COPY_BYTES_MAX: u64 = 4 << 30;
/// What disks are filled with: so many keys, spread over all shards, of so many
/// bytes each, written again and again.
const KEYS: u64 = 64;
const VALUE_BYTES: usize = 64 << 10;
/// How long a node may take to fill its disk and to end.
const FILLED: Duration = Duration::from_secs(180);
/// What `st_blocks` counts in, whatever the file system's own blocks are.
const BLOCK_BYTES: u64 = 512;

/// How a disk is made full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// By a small file system in memory.
    Mounted,
    /// By a limit on the size of files: what can be done without privileges.
    Limited,
}

impl Room {
    /// What this machine allows.
    pub(super) fn find(folder: &Path, may_mount: bool) -> Self {
        let probe = folder.join("small-probe");
        let is_mounted = may_mount && Mount::new(&probe, VALUE_BYTES as u64).is_ok();
        // A folder that nobody made needs no removal.
        let _ = fs::remove_dir(&probe);
        if is_mounted { Self::Mounted } else { Self::Limited }
    }

    pub(super) const fn how(self) -> &'static str {
        match self {
            Self::Mounted => "a small tmpfs",
            Self::Limited => "a limit on the size of files",
        }
    }
}

/// A file system in memory, gone with this value.
#[derive(Debug)]
struct Mount(PathBuf);

impl Mount {
    fn new(at: &Path, bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(at)?;
        let size = format!("size={bytes}");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "quorate-chaos"]).arg(at))?;
        Ok(Self(at.to_owned()))
    }

    fn resize(&self, bytes: u64) -> io::Result<()> {
        let options = format!("remount,size={bytes}");
        run(Command::new("mount").args(["-o", &options]).arg(&self.0))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// Takes away what a run that was cut off may have left mounted.
pub(super) fn clear(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("small-") {
            unmount(&entry.path());
        }
    }
}

fn unmount(at: &Path) {
    // Lazily: a process that is about to end may have files open. If it fails,
    // nothing was mounted there.
    let _ = run(Command::new("umount").arg("-l").arg(at));
}

fn run(command: &mut Command) -> io::Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Fills one node's disk until the node has ended, and starts it again with
/// room.
pub(super) fn strike(striker: &mut Striker<'_>, chance: &mut SplitMix) -> (String, Effect) {
    let nodes = striker.fleet.cluster.running();
    let victim = pick(chance, &nodes);
    let others: Vec<u64> = nodes.into_iter().filter(|id| *id != victim).collect();
    let what = format!("node {victim}, {}", striker.room.how());
    let cluster = &mut striker.fleet.cluster;
    cluster.kill(victim);
    let usual = cluster.directory(victim);
    let small = cluster.path(&format!("small-{victim}"));
    let mount = match striker.room {
        Room::Mounted => {
            let mount = Mount::new(&small, COPY_BYTES_MAX).unwrap();
            copy(&usual, &small).unwrap();
            mount.resize(allocated(&small).unwrap() + ROOM_BYTES).unwrap();
            cluster.house(victim, Housing { directory: Some(small.clone()), file_bytes_max: None });
            Some(mount)
        }
        Room::Limited => {
            let file_bytes_max = Some(longest(&usual).unwrap() + ROOM_BYTES);
            cluster.house(victim, Housing { directory: None, file_bytes_max });
            None
        }
    };
    let said_before = fs::metadata(cluster.log(victim)).map_or(0, |log| log.len());
    cluster.spawn(victim);
    let mut filler = Filler::new(others.iter().map(|id| cluster.gateway(*id)).collect());
    let exit = eventually("a node ends whose disk is full", FILLED, || {
        cluster.ended(victim).ok_or_else(|| filler.write())
    });
    let said = fs::read(cluster.log(victim)).unwrap();
    let said = String::from_utf8_lossy(&said[usize::try_from(said_before).unwrap()..]).into_owned();
    let error = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(
        exit.code() == Some(1) && !error.is_empty(),
        "a node whose disk was full ended with {exit}, saying: {said}"
    );
    if let Some(mount) = mount {
        copy(&small, &usual).unwrap();
        drop(mount);
    }
    cluster.house(victim, Housing::default());
    cluster.spawn(victim);
    filler.clear();
    (what, Ok(format!("ended after {} writes: {error}", filler.written)))
}

/// Writes until told to stop.
struct Filler {
    gateways: Vec<std::net::SocketAddr>,
    turn: usize,
    client: Option<Client>,
    written: u64,
    value: String,
}

impl Filler {
    fn new(gateways: Vec<std::net::SocketAddr>) -> Self {
        let value = "x".repeat(VALUE_BYTES);
        Self { gateways, turn: 0, client: None, written: 0, value }
    }

    /// Writes one value; says how far it has come.
    fn write(&mut self) -> String {
        let key = format!("fill:{}", self.written % KEYS);
        let command: Words = vec!["SET".to_owned(), key, self.value.clone()];
        match self.send(command) {
            Ok(()) => self.written += 1,
            Err(why) => return why,
        }
        format!("{} values of {VALUE_BYTES} B written", self.written)
    }

    fn send(&mut self, command: Words) -> Result<(), String> {
        let client = match &mut self.client {
            Some(client) => client,
            none => {
                self.turn += 1;
                let gateway = self.gateways[self.turn % self.gateways.len()];
                none.insert(Client::connect(gateway).map_err(|error| error.to_string())?)
            }
        };
        client.run(command).map(drop).map_err(|failure| {
            self.client = None;
            format!("{failure:?}")
        })
    }

    /// Takes everything away again, key by key: a transaction that deletes reads
    /// what it deletes, and may not read so much.
    fn clear(&mut self) {
        for key in 0..KEYS {
            let command = words(&format!("DEL fill:{key}"));
            eventually("what filled the disk is deleted", FILLED, || self.send(command.clone()));
        }
    }
}

/// Copies the files of one directory into another, over those that are there.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for file in files(from)? {
        let name = file.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        fs::copy(&file, to.join(name))?;
    }
    Ok(())
}

fn allocated(directory: &Path) -> io::Result<u64> {
    let sizes = files(directory)?.into_iter();
    sizes.map(|file| Ok(fs::metadata(file)?.blocks() * BLOCK_BYTES)).sum()
}

fn longest(directory: &Path) -> io::Result<u64> {
    let sizes = files(directory)?.into_iter().map(|file| Ok(fs::metadata(file)?.len()));
    Ok(sizes.collect::<io::Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0))
}

fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
}
