//! Processes that end with the value that stands for them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long a server may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a log that are shown when its process has failed.
const LOG_LINES: usize = 8;

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says goes to `<name>.log` in `directory`.
    /// Its standard input is a pipe that ends when this process does.
    pub(crate) fn start(name: &str, command: &mut Command, directory: &Path) -> Outcome<Self> {
        let log = directory.join(format!("{name}.log"));
        let output = File::create(&log)?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Waits until `is_ready` says so.
    pub(crate) async fn wait_ready<F: Future<Output = bool>>(
        &mut self,
        is_ready: impl Fn() -> F,
    ) -> Outcome {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.failed(&format!("ended by itself ({status})")).into());
            }
            if is_ready().await {
                return Ok(());
            }
            if begin.elapsed() >= START_MAX {
                let reason = format!("does not serve after {} s", START_MAX.as_secs());
                return Err(self.failed(&reason).into());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// An error if it has ended, as no server should by itself.
    pub(crate) fn check(&mut self) -> Outcome {
        match self.child.try_wait()? {
            Some(status) => Err(self.failed(&format!("ended under load ({status})")).into()),
            None => Ok(()),
        }
    }

    /// Seconds of processor time that it has used.
    pub(crate) fn cpu_seconds(&self) -> Option<f64> {
        quorate_benches::cpu_seconds(&self.child.id().to_string())
    }

    fn failed(&self, reason: &str) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_LINES)..).unwrap_or_default();
        format!("{} {reason}; its log ends with:\n{}", self.name, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What fails here is a process that has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds of processor time that everything on this machine has used.
pub(crate) fn machine_cpu_seconds() -> Option<f64> {
    // User, nice, system, idle, waiting for the disk, interrupts (two kinds),
    // stolen by other virtual machines.
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let ticks: Vec<f64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
    let idle: f64 = ticks.iter().skip(3).take(2).sum();
    Some((ticks.iter().sum::<f64>() - idle) / quorate_benches::TICKS_PER_SECOND)
}
