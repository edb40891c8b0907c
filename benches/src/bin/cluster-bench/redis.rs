//! Redis as a peer: one process, every write synced before its answer. It
//! replicates nothing, so it is a bound, not an equal.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use quorate_benches::Process;
use quorate_testkit::process::free_ports;

use crate::Outcome;
use crate::connection::{Connection, Frame, encode};

const PROGRAM: &str = "redis-server";

/// A running Redis, which ends with this value.
#[derive(Debug)]
pub(crate) struct Redis {
    pub(crate) process: Process,
    pub(crate) gateway: SocketAddr,
}

/// What the installed Redis says of its version; `None` if there is none.
pub(crate) fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_whitespace().find_map(|word| word.strip_prefix("v=")).map(str::to_owned)
}

impl Redis {
    /// Starts it with its data in `directory`.
    pub(crate) async fn start(directory: &Path) -> Outcome<Self> {
        let ports = free_ports(1)?.release();
        let gateway = *ports.first().ok_or("there is no free port")?;
        let data = directory.join("redis");
        std::fs::create_dir_all(&data)?;
        let mut command = Command::new(PROGRAM);
        command
            .args(["--bind", "127.0.0.1", "--port", &gateway.port().to_string()])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--save", ""])
            // A rewrite is a process of its own, which this bench would neither
            // end nor count.
            .args(["--auto-aof-rewrite-percentage", "0"])
            .arg("--dir")
            .arg(&data);
        let mut process = Process::start("redis", &mut command, directory)?;
        process.wait_ready(async || is_ready(gateway).await).await?;
        Ok(Self { process, gateway })
    }
}

async fn is_ready(gateway: SocketAddr) -> bool {
    let mut wire = Vec::new();
    encode(&mut wire, &["PING"]);
    let Ok(mut connection) = Connection::open(gateway).await else { return false };
    matches!(connection.exchange(&wire, 1).await, Ok(Frame::SimpleString(_)))
}
