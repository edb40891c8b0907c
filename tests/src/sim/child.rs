//! A process of its own for every run: one that hangs, aborts or leaks costs
//! no other.
#![allow(clippy::disallowed_methods, reason = "limits in real time, outside of the simulations")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::run::Run;

/// Where findings are left, from the folder in which the program runs.
pub(super) const FOLDER: &str = "target/sim";
/// Longer than any run takes on a slow machine.
const WALL_DURATION_MAX: Duration = Duration::from_secs(600);
pub(super) const POLL: Duration = Duration::from_millis(20);

/// A process that runs one seed.
pub(super) struct Child {
    pub(super) seed: u64,
    /// The seed, or the file of options.
    pub(super) what: String,
    process: std::process::Child,
    output: PathBuf,
    until: Instant,
    is_killed: bool,
}

impl Child {
    /// Runs a seed, or the options in a file; it leaves what it found in the
    /// folder, or nothing.
    pub(super) fn start(
        seed: u64,
        what: &str,
        leaves: bool,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let more = if leaves { None } else { Some("--leaves-nothing") };
        Self::start_with(seed, what, more.map(OsStr::new).as_slice())
    }

    /// Runs a seed, which leaves its whole trace in a file.
    pub(super) fn start_traced(
        seed: u64,
        trace: &Path,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let more = ["--leaves-nothing".as_ref(), "--trace".as_ref(), trace.as_os_str()];
        Self::start_with(seed, &seed.to_string(), &more)
    }

    fn start_with(
        seed: u64,
        what: &str,
        more: &[&OsStr],
    ) -> Result<Self, Box<dyn std::error::Error>> {
        std::fs::create_dir_all(FOLDER)?;
        static STARTED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let output = Path::new(FOLDER).join(format!("run-{}-{number}.json", std::process::id()));
        let process = std::process::Command::new(std::env::current_exe()?)
            .args(["one", what])
            .args(more)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&output)?)
            .stderr(std::fs::File::create(output.with_extension("log"))?)
            .spawn()?;
        let (what, until) = (what.to_owned(), Instant::now() + WALL_DURATION_MAX);
        Ok(Self { seed, what, process, output, until, is_killed: false })
    }

    /// Whether there is nothing to wait for.
    pub(super) fn has_ended(&mut self) -> bool {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return true;
        }
        if Instant::now() >= self.until {
            // It is found dead when it is waited for.
            self.is_killed |= self.process.kill().is_ok();
        }
        false
    }

    /// What it found, once it has ended.
    pub(super) fn wait(&mut self) -> Result<Run, Box<dyn std::error::Error>> {
        while !self.has_ended() {
            std::thread::sleep(POLL);
        }
        let status = self.process.wait()?;
        let text = std::fs::read_to_string(&self.output)?;
        let log = self.output.with_extension("log");
        let said = std::fs::read_to_string(&log).unwrap_or_default();
        let _ = std::fs::remove_file(&self.output);
        let _ = std::fs::remove_file(&log);
        if !status.success() {
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            if self.is_killed {
                // A run ends itself long before, but not while a task never
                // waits: then look where it spins, with a debugger.
                let why = format!("killed after {WALL_DURATION_MAX:?}: a task never waits");
                return Err(format!("{why}: {last:?}").into());
            }
            return Err(format!("its process ended with {status}: {last:?}").into());
        }
        Ok(serde_json::from_str(text.trim())?)
    }
}
