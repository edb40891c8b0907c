//! Processes that end with the value that stands for them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cpu_seconds;
use crate::measured::Outcome;

/// How long a server may take until it serves.
const START_MAX: Duration = Duration::from_secs(60);
/// How often it is asked.
const POLL: Duration = Duration::from_millis(50);
/// Lines of a log that are shown when its process has failed.
const LOG_LINES: usize = 8;

/// A running process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program; what it says goes to `<name>.log` in `directory`.
    /// Its standard input is a pipe that ends when this process does.
    ///
    /// # Errors
    /// A message for a person, when it cannot be started.
    pub fn start(name: &str, command: &mut Command, directory: &Path) -> Outcome<Self> {
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
    ///
    /// # Errors
    /// A message for a person with the end of its log, when it ends before, or does
    /// not serve within a minute.
    pub async fn wait_ready<F: Future<Output = bool>>(
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

    /// Sees that it has not ended, as no server should by itself.
    ///
    /// # Errors
    /// A message for a person with the end of its log, when it has.
    pub fn check(&mut self) -> Outcome {
        match self.child.try_wait()? {
            Some(status) => Err(self.failed(&format!("ended under load ({status})")).into()),
            None => Ok(()),
        }
    }

    /// Seconds of processor time that it has used.
    #[must_use]
    pub fn cpu_seconds(&self) -> Option<f64> {
        cpu_seconds(&self.child.id().to_string())
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
