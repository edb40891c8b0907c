//! The machine, as far as figures depend on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;

/// Processor time is told in ticks of this length on every Linux system.
const TICKS_PER_SECOND: f64 = 100.0;

/// File systems in memory, on which a sync costs nothing.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

/// What figures are worth nothing without.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    processor: String,
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// Of the directory with the data.
    file_system: String,
    /// Processes that wanted to run in the last minute: of others, if this is
    /// not near zero.
    load_before: f64,
}

impl Machine {
    /// Describes this machine; what the system does not tell is `?`.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let line = text.lines().find(|line| line.starts_with(name))?.to_owned();
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let unknown = || "?".to_owned();
        let kib = field("/proc/meminfo", "MemTotal")
            .and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        let load = fs::read_to_string("/proc/loadavg").ok();
        Self {
            processor: field("/proc/cpuinfo", "model name").unwrap_or_else(unknown),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")
                .map_or_else(|_| unknown(), |text| text.trim().to_owned()),
            file_system: file_system(directory).unwrap_or_else(unknown),
            load_before: load
                .and_then(|text| text.split(' ').next()?.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }

    /// Whether the data would not be on a disk at all.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        IN_MEMORY.contains(&self.file_system.as_str())
    }

    /// In one line.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self { processor, cores, memory_gib, kernel, file_system, load_before } = self;
        format!(
            "{cores} x {processor}, {memory_gib} GiB, kernel {kernel}, {file_system}; \
             load average before {load_before:.2}"
        )
    }
}

/// The type of the file system that a directory is on.
fn file_system(directory: &Path) -> Option<String> {
    let device = device(directory)?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    // 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw
    let of_device = mounts.lines().find(|line| line.split(' ').nth(2) == Some(device.as_str()))?;
    Some(of_device.split_once(" - ")?.1.split(' ').next()?.to_owned())
}

/// Flushes that the disk under a directory has been asked for so far, by
/// anyone; `None` where the system does not count them.
#[must_use]
pub fn flushes(directory: &Path) -> Option<u64> {
    statistic(directory, 15)
}

/// Bytes that were written to the disk under a directory so far, by anyone. (A
/// process's own count says more on some kernels: where a page is overwritten
/// it counts the folio around it.)
#[must_use]
pub fn written_bytes(directory: &Path) -> Option<u64> {
    const SECTOR_BYTES: u64 = 512;
    Some(statistic(directory, 6)? * SECTOR_BYTES)
}

/// A number of the device: of reads, writes, discards with four numbers each,
/// three of the queue's, two of flushes.
fn statistic(directory: &Path, place: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/sys/dev/block/{}/stat", device(directory)?)).ok()?;
    stat.split_whitespace().nth(place)?.parse().ok()
}

/// Seconds of processor time that a process has used, `self` for this one.
/// `None` on systems without `/proc`.
#[must_use]
pub fn cpu_seconds(process: &str) -> Option<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name in parentheses may contain anything; user and system time are
    // the 14th and 15th field, the state behind the name being the third.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

/// Bytes of memory that a process holds; `None` on systems without `/proc`.
#[must_use]
pub fn resident_bytes(process: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib << 10)
}

/// `major:minor`, as Linux packs them.
fn device(directory: &Path) -> Option<String> {
    let device = fs::metadata(directory).ok()?.dev();
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xf_ff00);
    Some(format!("{major}:{minor}"))
}

/// Seconds of processor time that everything on this machine has used.
#[must_use]
pub fn machine_cpu_seconds() -> Option<f64> {
    // User, nice, system, idle, waiting for the disk, interrupts (two kinds),
    // stolen by other virtual machines.
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let ticks: Vec<f64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Some((ticks.iter().sum::<f64>() - idle) / TICKS_PER_SECOND)
}
