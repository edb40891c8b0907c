//! The disk itself.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_types::disk::{Disk, DiskFile};
use quorate_types::env::{Rng, SplitMix};

use super::DiskImage;
use super::fault::{Faults, Ills, SyncFault};
use super::image::{Image, SECTOR_BYTES};

/// FNV-1a, 64 bits: an offset basis and a prime fixed by its authors.
const FNV_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// Larger files are a defect of the test: all of this is in memory.
const FILE_BYTES_MAX: u64 = 4 << 30;

/// A directory of files in memory that loses power.
///
/// A value is the disk as *one boot* of its machine sees it. After
/// [`CrashDisk::crash`] that boot is over: it and every file it opened answer
/// with errors, whatever its tasks still try, and [`CrashDisk::reboot`] gives
/// the disk to the next one. Clones belong to the same boot. Controls (crash,
/// faults, counters) act on the disk through any boot's value.
///
/// Nothing it does takes virtual time: a [`Disk`] answers at once. A slow disk
/// is a node whose syncs take long
/// ([`SimNode::set_sync_delay_max`](crate::sim::SimNode::set_sync_delay_max)).
#[derive(Debug, Clone)]
pub struct CrashDisk {
    platters: Arc<Mutex<Platters>>,
    boot: u64,
}

/// What was done to a disk, over all boots. Failed attempts count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Calls that change the disk: writes, changes of length, syncs, creations
    /// and removals. A crash can be armed for any of them.
    pub operations: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Changes of length.
    pub set_lens: u64,
    /// Syncs.
    pub syncs: u64,
    /// Files created or removed.
    pub names: u64,
    /// Power cuts.
    pub crashes: u64,
    /// Power cuts that found something unsynced.
    pub crashes_unsynced: u64,
    /// Writes of which a power cut kept a part and lost a part.
    pub writes_torn: u64,
    /// Calls that injected faults made fail, lie or return a flipped bit.
    pub ills: u64,
    /// A running checksum over all calls so far: their kinds, files, offsets
    /// and lengths, and what was written. Two runs of a seed have the same at
    /// the same moment.
    pub checksum: u64,
}

#[derive(Debug)]
struct Platters {
    files: BTreeMap<String, Stored>,
    boot: u64,
    is_powered: bool,
    armed: Option<(u64, u64)>,
    ills: Ills,
    counters: DiskCounters,
    chance: SplitMix,
    next_handle: u64,
}

#[derive(Debug, Default)]
struct Stored {
    image: Arc<Mutex<Image>>,
    holder: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Write,
    SetLen,
    Sync,
    Name,
}

impl CrashDisk {
    /// An empty disk; `seed` decides partial writes and flipped bits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::from_image(&DiskImage::default(), seed)
    }

    /// A disk that holds what `image` holds, all of it durable, and has done
    /// nothing yet.
    #[must_use]
    pub fn from_image(image: &DiskImage, seed: u64) -> Self {
        let stored = |bytes: &[u8]| Stored {
            image: Arc::new(Mutex::new(Image::of(bytes.to_vec()))),
            holder: None,
        };
        let files = image.files().map(|(name, bytes)| (name.to_owned(), stored(bytes)));
        let platters = Platters {
            files: files.collect(),
            boot: 0,
            is_powered: true,
            armed: None,
            ills: Ills::default(),
            counters: DiskCounters::default(),
            chance: SplitMix::new(seed),
            next_handle: 0,
        };
        Self { platters: Arc::new(Mutex::new(platters)), boot: 0 }
    }

    /// Cuts the power: keeps of the unsynced changes what `seed` decides, in
    /// whole sectors, and ends the boot. Does nothing while power is off.
    pub fn crash(&self, seed: u64) {
        let mut platters = self.platters.lock();
        if platters.is_powered {
            platters.cut(seed);
        }
    }

    /// Cuts the power during the `operations`-th change from now (1 is the
    /// next), which then fails, as if by [`CrashDisk::crash`] with `seed`. The
    /// end of the boot takes it back.
    pub fn arm(&self, operations: u64, seed: u64) {
        let mut platters = self.platters.lock();
        let at = platters.counters.operations.saturating_add(operations.max(1));
        platters.armed = Some((at, seed));
    }

    /// The disk as the next boot finds it, with power on and no file locked.
    /// If the present boot has not crashed this is the death of a process
    /// only: its handles die, what it wrote stays.
    #[must_use]
    pub fn reboot(&self) -> Self {
        let mut platters = self.platters.lock();
        platters.end_boot();
        platters.is_powered = true;
        Self { platters: Arc::clone(&self.platters), boot: platters.boot }
    }

    /// Whether this value's boot still runs.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let platters = self.platters.lock();
        platters.is_powered && platters.boot == self.boot
    }

    /// What is durable now: what a power cut leaves when it is unkind. That the
    /// disk goes on, or loses power, does not change the image.
    #[must_use]
    pub fn image(&self) -> DiskImage {
        let platters = self.platters.lock();
        let durable = |file: &Stored| file.image.lock().durable().to_vec();
        DiskImage::new(
            platters.files.iter().map(|(name, file)| (name.clone(), durable(file))).collect(),
        )
    }

    /// Replaces the faults of all files that have none of their own
    /// ([`CrashDisk::set_file_faults`]). [`Faults::default`] is a healthy disk.
    /// Faults outlast crashes and reboots.
    pub fn set_faults(&self, faults: Faults) {
        self.platters.lock().ills.set_general(faults);
    }

    /// Gives a file faults of its own, which stand for the disk's.
    /// [`Faults::default`] takes them away again.
    pub fn set_file_faults(&self, name: &str, faults: Faults) {
        self.platters.lock().ills.set_of(name, faults);
    }

    /// Ends all faults, the disk's and those of files. What was lost meanwhile
    /// stays lost.
    pub fn clear_faults(&self) {
        self.platters.lock().ills.clear();
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> DiskCounters {
        self.platters.lock().counters
    }

    /// Changes a file's durable bytes behind everyone's back, as decay would.
    /// Everything unsynced in it becomes durable first. False if it is missing.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let image = self.platters.lock().files.get(name).map(|file| Arc::clone(&file.image));
        image.map(|image| image.lock().damage(change)).is_some()
    }

    fn live(&self) -> io::Result<parking_lot::MutexGuard<'_, Platters>> {
        let platters = self.platters.lock();
        if platters.is_powered && platters.boot == self.boot { Ok(platters) } else { Err(dead()) }
    }
}

fn dead() -> io::Error {
    io::Error::other("the disk lost power under this boot")
}

fn injected() -> io::Error {
    io::Error::other("injected EIO")
}

impl Platters {
    /// Adds a call to the checksum.
    fn sum_up(&mut self, kind: &str, name: &str, offset: u64, length: u64, data: &[u8]) {
        let data = u64::from(crc32c::crc32c(data));
        let words = [offset.to_le_bytes(), length.to_le_bytes(), data.to_le_bytes()];
        let bytes = kind.bytes().chain(name.bytes()).chain(words.into_iter().flatten());
        let sum = &mut self.counters.checksum;
        *sum = bytes
            .fold(*sum ^ FNV_BASIS, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(FNV_PRIME));
    }

    fn end_boot(&mut self) {
        self.boot += 1;
        self.armed = None;
        for file in self.files.values_mut() {
            file.holder = None;
        }
    }

    fn cut(&mut self, seed: u64) {
        let mut chance = SplitMix::new(seed);
        let mut found_unsynced = false;
        for file in self.files.values() {
            let mut image = file.image.lock();
            found_unsynced |= image.has_unsynced();
            self.counters.writes_torn += image.cut(&mut chance);
        }
        self.counters.crashes += 1;
        self.counters.crashes_unsynced += u64::from(found_unsynced);
        self.end_boot();
        self.is_powered = false;
    }

    /// Counts a change; says with which seed power is cut during it.
    fn count(&mut self, kind: Kind) -> Option<u64> {
        let counters = &mut self.counters;
        counters.operations += 1;
        match kind {
            Kind::Write => counters.writes += 1,
            Kind::SetLen => counters.set_lens += 1,
            Kind::Sync => counters.syncs += 1,
            Kind::Name => counters.names += 1,
        }
        self.armed.filter(|(at, _)| *at <= counters.operations).map(|(_, seed)| seed)
    }

    /// How many of `grows_bytes` more bytes of the file `name` do not fit.
    fn missing_bytes(&self, name: &str, grows_bytes: u64) -> u64 {
        let Some(capacity) = self.ills.of(name).and_then(|faults| faults.capacity_bytes) else {
            return 0;
        };
        let used: u64 = self.files.values().map(|file| file.image.lock().len()).sum();
        grows_bytes.saturating_sub(capacity.saturating_sub(used))
    }
}

impl Disk for CrashDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut platters = self.live()?;
        if !platters.files.contains_key(name) {
            if let Some(seed) = platters.count(Kind::Name) {
                if SplitMix::new(!seed).below(2) == 0 {
                    platters.files.insert(name.to_owned(), Stored::default());
                }
                platters.cut(seed);
                return Err(dead());
            }
            platters.files.insert(name.to_owned(), Stored::default());
        }
        platters.sum_up("open", name, 0, 0, &[]);
        platters.next_handle += 1;
        let handle = platters.next_handle;
        let file = platters.files.entry(name.to_owned()).or_default();
        if file.holder.is_some() {
            return Err(io::Error::new(
                io::ErrorKind::WouldBlock,
                format!("{name} is in use by another handle"),
            ));
        }
        file.holder = Some(handle);
        let image = Arc::clone(&file.image);
        Ok(Arc::new(CrashFile { disk: self.clone(), name: name.to_owned(), image, handle }))
    }

    fn exists(&self, name: &str) -> io::Result<bool> {
        Ok(self.live()?.files.contains_key(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut platters = self.live()?;
        if !platters.files.contains_key(name) {
            return Ok(());
        }
        platters.sum_up("remove", name, 0, 0, &[]);
        let crash = platters.count(Kind::Name);
        if crash.is_none_or(|seed| SplitMix::new(!seed).below(2) == 0) {
            platters.files.remove(name);
        }
        crash.map_or(Ok(()), |seed| {
            platters.cut(seed);
            Err(dead())
        })
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.live()?.files.keys().cloned().collect())
    }
}

/// An open file. A removed one stays readable and writable through its handle.
#[derive(Debug)]
struct CrashFile {
    disk: CrashDisk,
    name: String,
    image: Arc<Mutex<Image>>,
    handle: u64,
}

impl DiskFile for CrashFile {
    fn len(&self) -> io::Result<u64> {
        let _platters = self.disk.live()?;
        Ok(self.image.lock().len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut platters = self.disk.live()?;
        platters.sum_up("read", &self.name, offset, out.len() as u64, &[]);
        platters.counters.reads += 1;
        let reads = platters.counters.reads;
        let faults = platters.ills.of(&self.name);
        let fails = faults.is_some_and(|faults| {
            faults.read_error_at == Some(reads)
                || faults.read_errors_from.is_some_and(|from| reads >= from)
        });
        if fails {
            platters.counters.ills += 1;
            return Err(injected());
        }
        let flip_one_in = faults.map_or(0, |faults| faults.flip_one_read_in);
        self.image.lock().read(offset, out)?;
        if flip_one_in > 0 && platters.chance.below(flip_one_in) == 0 {
            let bit = platters.chance.below(out.len() as u64 * 8);
            if let Some(byte) = usize::try_from(bit / 8).ok().and_then(|at| out.get_mut(at)) {
                *byte ^= 1 << (bit % 8);
                platters.counters.ills += 1;
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut platters = self.disk.live()?;
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(io::ErrorKind::FileTooLarge)?;
        platters.sum_up("write", &self.name, offset, data.len() as u64, data);
        let crash = platters.count(Kind::Write);
        let is_from = |from: Option<u64>| from.is_some_and(|it| platters.counters.writes >= it);
        let faults = platters.ills.of(&self.name);
        let is_full = faults.is_some_and(|faults| is_from(faults.full_from));
        let fails = is_full || faults.is_some_and(|faults| is_from(faults.write_errors_from));
        let grows_bytes = end.saturating_sub(self.image.lock().len());
        let missing_bytes = platters.missing_bytes(&self.name, grows_bytes);
        // Of a write that fails, some sectors were written: the device takes
        // one whole or not at all.
        let written = match (fails, missing_bytes) {
            (true, _) => {
                let upto = offset + platters.chance.below(data.len() as u64 + 1);
                (upto - upto % SECTOR_BYTES).saturating_sub(offset)
            }
            (false, missing_bytes) => (data.len() as u64).saturating_sub(missing_bytes),
        };
        let written = data.get(..usize::try_from(written).unwrap_or(0)).unwrap_or(data);
        if !written.is_empty() {
            self.image.lock().write(offset, written)?;
        }
        if let Some(seed) = crash {
            platters.cut(seed);
            return Err(dead());
        }
        platters.counters.ills += u64::from(fails || missing_bytes > 0);
        match (fails, missing_bytes) {
            (true, _) if !is_full => Err(injected()),
            (false, 0) => Ok(()),
            _ => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platters = self.disk.live()?;
        if len > FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        platters.sum_up("set length", &self.name, 0, len, &[]);
        let crash = platters.count(Kind::SetLen);
        let grows_bytes = len.saturating_sub(self.image.lock().len());
        if platters.missing_bytes(&self.name, grows_bytes) > 0 {
            platters.counters.ills += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.image.lock().set_len(len)?;
        crash.map_or(Ok(()), |seed| {
            platters.cut(seed);
            Err(dead())
        })
    }

    fn sync(&self) -> io::Result<()> {
        let mut platters = self.disk.live()?;
        platters.sum_up("sync", &self.name, 0, 0, &[]);
        if let Some(seed) = platters.count(Kind::Sync) {
            platters.cut(seed);
            return Err(dead());
        }
        let syncs = platters.counters.syncs;
        let fault = platters.ills.of(&self.name).and_then(|faults| faults.sync);
        match fault.filter(|(from, _)| syncs >= *from) {
            None => self.image.lock().sync(),
            Some((_, SyncFault::Permanent)) => {
                platters.counters.ills += 1;
                return Err(injected());
            }
            Some((_, SyncFault::Lie)) => platters.counters.ills += 1,
            Some((_, SyncFault::Once)) => {
                platters.counters.ills += 1;
                platters.ills.end_sync_fault_of(&self.name);
                self.image.lock().forget_unsynced();
                return Err(injected());
            }
        }
        Ok(())
    }
}

impl Drop for CrashFile {
    fn drop(&mut self) {
        let mut platters = self.disk.platters.lock();
        if let Some(file) = platters.files.get_mut(&self.name) {
            file.holder.take_if(|holder| *holder == self.handle);
        }
    }
}
