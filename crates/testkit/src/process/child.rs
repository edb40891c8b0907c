//! One process.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use tokio::time::Instant;

use super::http;
use crate::TestkitError;

/// How often to ask whether a process is ready, or gone.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// How long one request for readiness may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);

/// So much of a log's end is shown when its process fails.
const LOG_SHOWN_BYTES: usize = 2000;

/// What to start.
#[derive(Debug, Clone)]
pub struct ProcessSpec {
    /// What to call it in messages.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Environment variables besides those of this process.
    pub env: Vec<(String, String)>,
    /// Where standard output and error go; appended to, so that restarts share
    /// a log.
    pub log: PathBuf,
}

impl ProcessSpec {
    /// A program without arguments.
    pub fn new(
        name: impl Into<String>,
        program: impl Into<PathBuf>,
        log: impl Into<PathBuf>,
    ) -> Self {
        let (name, program, log) = (name.into(), program.into(), log.into());
        Self { name, program, args: Vec::new(), env: Vec::new(), log }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// When the log cannot be opened or the program not be run.
    pub fn start(&self) -> Result<Child, TestkitError> {
        let log = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.program)
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Child { child, spec: self.clone(), exit: None })
    }
}

/// What a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGKILL: it dies on the spot.
    Kill,
    /// SIGTERM: it is asked to end.
    Terminate,
    /// SIGSTOP: it stands still, its connections stay open.
    Stop,
    /// SIGCONT: it goes on as if nothing had happened.
    Continue,
}

/// A running process, killed when dropped.
#[derive(Debug)]
pub struct Child {
    child: std::process::Child,
    spec: ProcessSpec,
    exit: Option<ExitStatus>,
}

impl Child {
    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.spec.log
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>, TestkitError> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?;
        }
        Ok(self.exit)
    }

    /// Waits until `GET path` is answered with 200. Blocks.
    ///
    /// # Errors
    /// `Process` when it ends before, or `timeout` passes, with its log's end.
    pub fn wait_ready(
        &mut self,
        address: SocketAddr,
        path: &str,
        timeout: Duration,
    ) -> Result<(), TestkitError> {
        let until = Instant::now() + timeout;
        loop {
            let answer = http::get(address, path, REQUEST_TIMEOUT);
            // Asked first: it may be another process that answers at its port.
            if let Some(exit) = self.exited()? {
                return Err(self.failed(&format!("ended with {exit} before it was ready")));
            }
            if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            if Instant::now() >= until {
                let last = answer.map_or_else(
                    |error| error.to_string(),
                    |answer| format!("status {}", answer.status),
                );
                return Err(self.failed(&format!("not ready after {timeout:?}: {last}")));
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// Waits until it has ended by itself. Blocks.
    ///
    /// # Errors
    /// `Process` when `timeout` passes.
    pub fn wait_exited(&mut self, timeout: Duration) -> Result<ExitStatus, TestkitError> {
        let until = Instant::now() + timeout;
        loop {
            if let Some(exit) = self.exited()? {
                return Ok(exit);
            }
            if Instant::now() >= until {
                return Err(self.failed(&format!("still running after {timeout:?}")));
            }
            std::thread::sleep(POLL_PAUSE);
        }
    }

    /// Sends a signal. After `Kill` it is also waited for: when this returns
    /// its ports and file locks are free.
    ///
    /// # Errors
    /// `Process` when it has ended already, or the signal cannot be sent.
    pub fn signal(&mut self, signal: Signal) -> Result<(), TestkitError> {
        if let Some(exit) = self.exited()? {
            return Err(self.failed(&format!("has ended with {exit}")));
        }
        let name = match signal {
            Signal::Kill => {
                self.child.kill()?;
                self.exit = Some(self.child.wait()?);
                return Ok(());
            }
            Signal::Terminate => "-TERM",
            Signal::Stop => "-STOP",
            Signal::Continue => "-CONT",
        };
        // The process is not yet waited for, so its id cannot be another's.
        let sent = Command::new("/bin/kill")
            .args([name, &self.id().to_string()])
            .stdin(Stdio::null())
            .output()?;
        if sent.status.success() {
            return Ok(());
        }
        Err(self.failed(&format!("{name}: {}", String::from_utf8_lossy(&sent.stderr).trim())))
    }

    /// The end of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.spec.log).unwrap_or_default();
        let tail = log.get(log.len().saturating_sub(LOG_SHOWN_BYTES)..).unwrap_or(&log);
        String::from_utf8_lossy(tail).into_owned()
    }

    fn failed(&self, reason: &str) -> TestkitError {
        let reason = format!("{reason}; its log ends with:\n{}", self.log_tail());
        TestkitError::Process { name: self.spec.name.clone(), reason }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // Killing works on a stopped process too. If it fails the process
            // is gone, and there is nobody to tell.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
