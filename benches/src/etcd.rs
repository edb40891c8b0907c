//! etcd as a peer: as many processes, each write durable on most of them, reads
//! linearizable. It does not speak RESP; its clients are a program of their own,
//! built in `benches/peers/etcd` with the crate that Rust programs use.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use quorate_testkit::process::free_ports;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use crate::measured::{Measured, Outcome, WARM_UP};
use crate::process::Process;

const PROGRAM: &str = "etcd";

/// A running cluster of etcd, which ends with this value.
#[derive(Debug)]
pub struct Etcd {
    /// Its nodes.
    pub processes: Vec<Process>,
    /// Where they take requests.
    clients: Vec<SocketAddr>,
    driver: EtcdClients,
}

/// The program with clients of etcd, and what they put and get.
#[derive(Debug, Clone)]
pub struct EtcdClients {
    /// Where it is, as built in `benches/peers`.
    pub program: PathBuf,
    /// How many keys there are.
    pub keys: u64,
    /// What the value of each has.
    pub value_bytes: usize,
}

/// What a driver prints at its end.
#[derive(Deserialize)]
struct Told {
    micros: Vec<u64>,
    errors: u64,
    first_error: Option<String>,
}

impl Etcd {
    /// What the installed etcd says of its version; `None` if there is none.
    #[must_use]
    pub fn version() -> Option<String> {
        let output = std::process::Command::new(PROGRAM).arg("--version").output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        text.lines().find_map(|line| line.strip_prefix("etcd Version: ")).map(str::to_owned)
    }

    /// Starts so many nodes with their data in `directory`, and writes every key
    /// that is read later.
    ///
    /// # Errors
    /// A message for a person, when one of them does not serve.
    pub async fn start(nodes: u64, directory: &Path, driver: EtcdClients) -> Outcome<Self> {
        let count = usize::try_from(nodes)?;
        let ports = free_ports(2 * count)?.release();
        let (peers, clients) = ports.split_at(count);
        let members: Vec<String> =
            (1..).zip(peers).map(|(id, at)| format!("etcd-{id}=http://{at}")).collect();
        let mut processes = Vec::new();
        for (id, (peer, client)) in (1..).zip(peers.iter().zip(clients)) {
            let name = format!("etcd-{id}");
            let (peer, client) = (format!("http://{peer}"), format!("http://{client}"));
            let mut command = std::process::Command::new(PROGRAM);
            command
                .args(["--name", &name, "--data-dir"])
                .arg(directory.join(&name))
                .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
                .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &members.join(","), "--logger", "zap"])
                .args(["--log-level", "error"]);
            processes.push(Process::start(&name, &mut command, directory)?);
        }
        for (process, client) in processes.iter_mut().zip(clients) {
            process.wait_ready(async || is_healthy(*client).await.unwrap_or(false)).await?;
        }
        let etcd = Self { processes, clients: clients.to_vec(), driver };
        let filled = etcd.drive(&etcd.clients, "fill", 1, Duration::ZERO)?.wait().await?;
        if filled.success() {
            Ok(etcd)
        } else {
            Err(format!("etcd: fill ended with {filled}").into())
        }
    }

    /// Where every node takes requests.
    #[must_use]
    pub fn everywhere(&self) -> &[SocketAddr] {
        &self.clients
    }

    /// Where the leader does.
    ///
    /// # Errors
    /// A message for a person, when none of them says that it leads.
    pub async fn leader(&self) -> Outcome<SocketAddr> {
        for client in &self.clients {
            let metrics = get(*client, "/metrics").await?;
            if metrics.lines().any(|line| line == "etcd_server_is_leader 1") {
                return Ok(*client);
            }
        }
        Err("no node of etcd says that it leads".into())
    }

    /// Has so many clients, spread over the nodes `at` these addresses, put (`set`)
    /// or read (`get`); `begun` is called when counting begins.
    ///
    /// # Errors
    /// A message for a person, when the program of the clients fails.
    pub async fn run(
        &self,
        at: &[SocketAddr],
        work: &str,
        clients: u32,
        duration: Duration,
        begun: impl FnOnce(),
    ) -> Outcome<Measured> {
        let mut driver = self.drive(at, work, clients, duration)?;
        let output: ChildStdout =
            driver.stdout.take().ok_or("the clients of etcd have no output")?;
        let mut lines = BufReader::new(output).lines();
        if lines.next_line().await?.as_deref() != Some("begin") {
            return Err("the clients of etcd did not begin".into());
        }
        begun();
        let told = lines.next_line().await?.ok_or("the clients of etcd told nothing")?;
        let Told { mut micros, errors, first_error } = serde_json::from_str(&told)?;
        driver.wait().await?;
        micros.sort_unstable();
        Ok(Measured { micros, errors, first_error })
    }

    fn drive(
        &self,
        at: &[SocketAddr],
        work: &str,
        clients: u32,
        duration: Duration,
    ) -> io::Result<Child> {
        let endpoints: Vec<String> = at.iter().map(ToString::to_string).collect();
        let EtcdClients { program, keys, value_bytes } = &self.driver;
        Command::new(program)
            .args([&endpoints.join(","), work, &clients.to_string()])
            .args([WARM_UP, duration].map(|it| it.as_millis().to_string()))
            .args([keys.to_string(), value_bytes.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }
}

/// Whether a node and its cluster serve.
async fn is_healthy(client: SocketAddr) -> io::Result<bool> {
    Ok(get(client, "/health").await?.contains("\"health\":\"true\""))
}

async fn get(client: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(client).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
