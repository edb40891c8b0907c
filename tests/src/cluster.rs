//! A cluster of processes on this machine.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use quorate_testkit::process::{Child, ProcessSpec, Signal};
use quorate_types::runtime::random;
use tempfile::TempDir;

use crate::admin::{Admin, Migration, Shard};
use crate::binary::server;
use crate::resp::{Client, Reply, words};
use crate::wait::eventually;

/// How long a node may take until it serves.
const START: Duration = Duration::from_secs(60);
/// How long a node may take to end by itself.
const END: Duration = Duration::from_secs(20);
/// How long replicas may take until they agree once nothing is written.
const AGREE: Duration = Duration::from_secs(30);

/// Ports come in blocks, all below those that the system gives to outgoing
/// connections: a node that was killed finds its own free again.
const FIRST_PORT: u16 = 27_100;
const BLOCK_PORTS: u16 = 50;
const BLOCKS: u16 = 100;
const GATEWAY_ABOVE: u16 = 15;
const ADMIN_ABOVE: u16 = 30;

/// What a shell's `ulimit -f` counts in.
const ULIMIT_UNIT_BYTES: u64 = 512;

/// One cluster at a time: several would take each other's processor time for
/// failures.
static MACHINE: Mutex<()> = Mutex::new(());

/// SIGKILL, as an exit status tells it.
const KILLED: i32 = 9;

/// A node's place: its addresses stay, its process may change.
#[derive(Debug, Default)]
struct Seat {
    joins: bool,
    child: Option<Child>,
    housing: Housing,
}

/// Where a node keeps its data, and how much room it has.
#[derive(Debug, Clone, Default)]
pub struct Housing {
    /// Another directory than the usual one.
    pub directory: Option<PathBuf>,
    /// No file may grow beyond so many bytes.
    pub file_bytes_max: Option<u64>,
}

/// Processes of one cluster, killed with this value.
#[derive(Debug)]
pub struct Cluster {
    seats: BTreeMap<u64, Seat>,
    founders: Vec<u64>,
    /// Where nodes are reached that listen elsewhere. Outlives their seats: the
    /// founders are named for ever.
    advertised: BTreeMap<u64, SocketAddr>,
    base_port: u16,
    shards: Option<u32>,
    /// Where data and logs lie.
    home: PathBuf,
    temporary: Option<TempDir>,
    _machine: MutexGuard<'static, ()>,
}

/// How a start ended that was to be refused.
#[derive(Debug)]
pub struct Refusal {
    /// The exit status.
    pub code: i32,
    /// What it said on standard error, apart from the log.
    pub message: String,
}

impl Cluster {
    /// Starts nodes 1 to `count` and waits until all serve.
    ///
    /// # Panics
    /// When they do not.
    #[must_use]
    pub fn start(count: u64) -> Self {
        let mut cluster = Self::seats(count);
        cluster.start_all();
        cluster
    }

    /// As [`Cluster::start`], with another number of shards than the default.
    ///
    /// # Panics
    /// When they do not serve.
    #[must_use]
    pub fn start_with_shards(count: u64, shards: u32) -> Self {
        let mut cluster = Self::seats(count);
        cluster.shards = Some(shards);
        cluster.start_all();
        cluster
    }

    /// Seats for nodes 1 to `count`, without processes.
    ///
    /// # Panics
    /// When there is no room for their files or ports.
    #[must_use]
    pub fn seats(count: u64) -> Self {
        let temporary = TempDir::with_prefix("quorate-tests-").unwrap();
        let mut cluster = Self::seats_in(count, temporary.path().to_owned());
        cluster.temporary = Some(temporary);
        cluster
    }

    /// As [`Cluster::seats`], with data and logs in a folder that stays.
    ///
    /// # Panics
    /// When there is no room for their ports.
    #[must_use]
    pub fn seats_in(count: u64, home: PathBuf) -> Self {
        let machine = MACHINE.lock();
        let founders: Vec<u64> = (1..=count).collect();
        Self {
            seats: founders.iter().map(|id| (*id, Seat::default())).collect(),
            founders,
            advertised: BTreeMap::new(),
            base_port: free_block(),
            shards: None,
            home,
            temporary: None,
            _machine: machine,
        }
    }

    /// Starts every node that does not run, and waits until all serve.
    pub fn start_all(&mut self) {
        let idle: Vec<u64> = self.ids().into_iter().filter(|id| !self.is_running(*id)).collect();
        for id in &idle {
            self.spawn(*id);
        }
        for id in idle {
            self.wait_ready(id);
        }
    }

    /// Starts a further node that joins the others, and waits until it serves.
    pub fn join(&mut self, id: u64) {
        self.add_seat(id);
        self.restart(id);
    }

    /// A seat for a further node, without a process.
    pub fn add_seat(&mut self, id: u64) {
        self.seats.insert(id, Seat { joins: true, ..Seat::default() });
    }

    /// Has the others reach a node elsewhere than where it listens. From its
    /// next start on; every founder must be told the same.
    pub fn advertise(&mut self, id: u64, at: SocketAddr) {
        self.advertised.insert(id, at);
    }

    /// Says where a node keeps its data from its next start on.
    pub fn house(&mut self, id: u64, housing: Housing) {
        self.seats.get_mut(&id).unwrap().housing = housing;
    }

    /// Ends a node politely that has nothing left to do, for good.
    pub fn retire(&mut self, id: u64) {
        self.terminate(id);
        self.seats.remove(&id);
    }

    /// Starts a node's process again and waits until it serves.
    pub fn restart(&mut self, id: u64) {
        self.spawn(id);
        self.wait_ready(id);
    }

    /// Starts a node's process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(&mut self, id: u64) {
        let mut spec = ProcessSpec::new(format!("node {id}"), server(), self.log(id));
        spec.args = self.arguments(id, &self.directory(id), self.seats[&id].joins);
        if let Some(bytes_max) = self.seats[&id].housing.file_bytes_max {
            // With the signal ignored a write beyond the limit fails.
            let limited = format!(
                "trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"",
                bytes_max / ULIMIT_UNIT_BYTES
            );
            let program = std::mem::replace(&mut spec.program, "sh".into());
            spec.args.splice(0..0, ["-c".into(), limited.into(), program.into()]);
        }
        spec.env.push(("RUST_LOG".to_owned(), log_filter()));
        self.seats.get_mut(&id).unwrap().child = Some(spec.start().unwrap());
    }

    /// Waits until a node serves.
    ///
    /// # Panics
    /// When it does not, or ends.
    pub fn wait_ready(&mut self, id: u64) {
        let admin = self.address(ADMIN_ABOVE, id);
        self.child(id).wait_ready(admin, "/readyz", START).unwrap_or_else(|why| panic!("{why}"));
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When the node does not run; so for the other signals.
    pub fn kill(&mut self, id: u64) {
        self.child(id).signal(Signal::Kill).unwrap_or_else(|why| panic!("{why}"));
        let exit = self.ended(id).expect("a killed process has ended");
        assert_eq!(exit.signal(), Some(KILLED), "node {id} ended with {exit} before it was killed");
    }

    /// How a node's process ended, if it has; then it has none any more.
    ///
    /// # Panics
    /// See [`Cluster::kill`].
    pub fn ended(&mut self, id: u64) -> Option<ExitStatus> {
        let exit = self.child(id).exited().unwrap_or_else(|why| panic!("{why}"))?;
        self.seats.get_mut(&id).unwrap().child = None;
        Some(exit)
    }

    /// Looks that no process has ended that nobody ended.
    ///
    /// # Panics
    /// When one has.
    pub fn assert_running(&mut self) {
        for id in self.running() {
            if let Some(exit) = self.ended(id) {
                panic!("node {id} ended by itself with {exit}; {}", self.log_end(id));
            }
        }
    }

    /// Whether a node's process stands still, where the system tells.
    ///
    /// # Panics
    /// See [`Cluster::kill`].
    #[must_use]
    pub fn is_stopped(&mut self, id: u64) -> Option<bool> {
        let process = self.child(id).id();
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        // The name before the state may contain anything but ends with this.
        let (_, state) = stat.rsplit_once(") ")?;
        Some(state.starts_with(['T', 't']))
    }

    /// SIGTERM, and waits until it has ended well.
    ///
    /// # Panics
    /// When it ends with an error.
    pub fn terminate(&mut self, id: u64) {
        self.child(id).signal(Signal::Terminate).unwrap_or_else(|why| panic!("{why}"));
        let exit = self.child(id).wait_exited(END).unwrap_or_else(|why| panic!("{why}"));
        assert!(exit.success(), "node {id} ended with {exit}: {}", self.child(id).log_tail());
        self.seats.get_mut(&id).unwrap().child = None;
    }

    /// SIGSTOP.
    ///
    /// # Panics
    /// See [`Cluster::kill`].
    pub fn pause(&mut self, id: u64) {
        self.child(id).signal(Signal::Stop).unwrap_or_else(|why| panic!("{why}"));
    }

    /// SIGCONT.
    ///
    /// # Panics
    /// See [`Cluster::kill`].
    pub fn resume(&mut self, id: u64) {
        self.child(id).signal(Signal::Continue).unwrap_or_else(|why| panic!("{why}"));
    }

    /// Runs `quorate start` for a node as [`Cluster::restart`] would, with a
    /// directory of choice, where it must end with an error by itself.
    ///
    /// # Panics
    /// When it goes on or ends well.
    #[must_use]
    #[track_caller]
    pub fn refused(&self, id: u64, directory: &Path, joins: bool) -> Refusal {
        Self::refused_with(&self.arguments(id, directory, joins))
    }

    /// Starts a second process on a running node's directory, at addresses
    /// that are free; it must end with an error by itself.
    ///
    /// # Panics
    /// When it goes on or ends well.
    #[must_use]
    #[track_caller]
    pub fn refused_elsewhere(&self, id: u64) -> Refusal {
        let directory = self.directory(id);
        let mut arguments: Vec<OsString> = vec!["start".into(), "--dir".into(), directory.into()];
        let free = self.base_port + BLOCK_PORTS - 4;
        let address = |above: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, free + above));
        let first = self.reached_at(1);
        for (flag, value) in [
            ("--node", id.to_string()),
            ("--addr", address(0).to_string()),
            ("--gateway", address(1).to_string()),
            ("--admin", address(2).to_string()),
            ("--join", first.to_string()),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        Self::refused_with(&arguments)
    }

    /// Runs the program where it must end with an error by itself.
    ///
    /// # Panics
    /// When it goes on or ends well.
    #[must_use]
    #[track_caller]
    pub fn refused_with(arguments: &[OsString]) -> Refusal {
        let mut child = Command::new(server())
            .args(arguments)
            .env("RUST_LOG", "off")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("the program refuses to start", END, || {
                child.try_wait().unwrap().ok_or_else(|| "it still runs".to_owned())
            })
        }));
        if ended.is_err() {
            let _ = child.kill();
        }
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        let status = ended.unwrap_or_else(|_| panic!("it did not end; it said: {message}"));
        let code = status.code().unwrap_or_else(|| panic!("ended with {status}: {message}"));
        assert_ne!(code, 0, "it ended well, saying: {message}");
        Refusal { code, message }
    }

    /// The arguments of a node's process.
    #[must_use]
    pub fn arguments(&self, id: u64, directory: &Path, joins: bool) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["start".into(), "--dir".into(), directory.into()];
        let node_address = |id: &u64| self.reached_at(*id).to_string();
        let members = self.founders.iter();
        let (flag, cluster): (&str, Vec<String>) = match joins {
            true => ("--join", members.map(node_address).collect()),
            false => {
                let listed = members.map(|id| format!("{id}={}", node_address(id)));
                ("--initial-cluster", listed.collect())
            }
        };
        for (flag, value) in [
            ("--node", id.to_string()),
            ("--addr", node_address(&id)),
            ("--gateway", self.gateway(id).to_string()),
            ("--admin", self.address(ADMIN_ABOVE, id).to_string()),
            (flag, cluster.join(",")),
        ] {
            arguments.extend([flag.into(), value.into()]);
        }
        if let Some(shards) = self.shards {
            arguments.extend(["--shards".into(), shards.to_string().into()]);
        }
        if self.reached_at(id) != self.listens_at(id) {
            arguments.extend(["--listen".into(), self.listens_at(id).to_string().into()]);
        }
        arguments
    }

    /// Where a node listens for the others.
    #[must_use]
    pub fn listens_at(&self, id: u64) -> SocketAddr {
        self.address(0, id)
    }

    /// Where the others reach a node.
    fn reached_at(&self, id: u64) -> SocketAddr {
        self.advertised.get(&id).copied().unwrap_or_else(|| self.listens_at(id))
    }

    /// Every node's number.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.seats.keys().copied().collect()
    }

    /// The nodes that have a process.
    #[must_use]
    pub fn running(&self) -> Vec<u64> {
        self.ids().into_iter().filter(|id| self.is_running(*id)).collect()
    }

    fn is_running(&self, id: u64) -> bool {
        self.seats[&id].child.is_some()
    }

    /// Where clients reach a node.
    #[must_use]
    pub fn gateway(&self, id: u64) -> SocketAddr {
        self.address(GATEWAY_ABOVE, id)
    }

    /// The gateways of all nodes.
    #[must_use]
    pub fn gateways(&self) -> Vec<SocketAddr> {
        self.ids().into_iter().map(|id| self.gateway(id)).collect()
    }

    /// A new connection to a node.
    ///
    /// # Panics
    /// When it does not listen.
    #[must_use]
    #[track_caller]
    pub fn client(&self, id: u64) -> Client {
        Client::connect(self.gateway(id)).unwrap_or_else(|why| panic!("node {id}: {why}"))
    }

    /// Runs a command that may be repeated, in one line, through a node until
    /// it succeeds: right after a death or a restart it may be refused, and its
    /// outcome may remain unknown.
    ///
    /// # Panics
    /// When it does not succeed.
    #[track_caller]
    pub fn insist(&self, id: u64, line: &str) -> Reply {
        eventually(line, START, || {
            let mut client =
                Client::connect(self.gateway(id)).map_err(|error| error.to_string())?;
            client.run(words(line)).map_err(|failure| format!("{failure:?}"))
        })
    }

    /// A node's admin interface.
    #[must_use]
    pub fn admin(&self, id: u64) -> Admin {
        Admin::at(self.address(ADMIN_ABOVE, id))
    }

    /// A node's data.
    #[must_use]
    pub fn directory(&self, id: u64) -> PathBuf {
        let elsewhere = self.seats.get(&id).and_then(|seat| seat.housing.directory.clone());
        elsewhere.unwrap_or_else(|| self.path(&format!("node-{id}")))
    }

    /// A path beside the nodes' data.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// What a node writes to its log, in all its lives.
    #[must_use]
    pub fn log(&self, id: u64) -> PathBuf {
        self.path(&format!("node-{id}.log"))
    }

    fn log_end(&self, id: u64) -> String {
        const LINES: usize = 12;
        let log = std::fs::read_to_string(self.log(id)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines.len().saturating_sub(LINES);
        format!("its log ends with:\n{}", lines[end..].join("\n"))
    }

    fn address(&self, above: u16, id: u64) -> SocketAddr {
        let port = self.base_port + above + u16::try_from(id).unwrap();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn child(&mut self, id: u64) -> &mut Child {
        let child = self.seats.get_mut(&id).and_then(|seat| seat.child.as_mut());
        child.unwrap_or_else(|| panic!("node {id} does not run"))
    }

    /// Asks any running node until it is answered.
    ///
    /// # Panics
    /// When there is no good answer in time.
    #[track_caller]
    pub fn ask<T>(&self, what: &str, mut question: impl FnMut(Admin) -> Result<T, String>) -> T {
        let admins: Vec<Admin> = self.running().into_iter().map(|id| self.admin(id)).collect();
        let mut turns = admins.iter().cycle();
        eventually(what, AGREE, || question(*turns.next().expect("a node runs")))
    }

    /// Who leads the shard of a key, as soon as somebody does.
    #[must_use]
    #[track_caller]
    pub fn leader_of(&self, key: &str) -> u64 {
        self.ask("the shard has a leader", |admin| {
            let shard = admin.shard_of(key)?;
            let leader = shard.leader.filter(|leader| self.running().contains(leader));
            leader.ok_or_else(|| format!("{shard:?}"))
        })
    }

    /// Waits until every node takes another to be in a state.
    #[track_caller]
    pub fn wait_state(&self, observers: &[u64], of: u64, state: &str, bound: Duration) {
        for observer in observers {
            let what = format!("node {observer} takes node {of} to be {state}");
            eventually(&what, bound, || {
                let node = self.admin(*observer).node(of)?;
                if node.state == state { Ok(()) } else { Err(format!("{node:?}")) }
            });
        }
    }

    /// Asks a node for an operation until it is begun; returns its migration.
    /// An operation that comes while another changes the same group is refused
    /// and may be asked for again.
    ///
    /// # Panics
    /// When it is not begun.
    #[must_use]
    #[track_caller]
    pub fn begin(&self, id: u64, path: &str, body: &serde_json::Value) -> String {
        let migration = eventually(path, AGREE, || self.admin(id).post(path, body));
        migration.unwrap_or_else(|| panic!("{path} has no migration"))
    }

    /// Waits until a migration has succeeded.
    ///
    /// # Panics
    /// When it fails or takes too long.
    #[track_caller]
    pub fn wait_migrated(&self, id: &str, bound: Duration) {
        let over = self.wait_over(id, bound);
        assert_eq!(over.error, None, "the migration failed: {over:?}");
    }

    /// Waits until a migration has ended, well or not.
    #[must_use]
    #[track_caller]
    pub fn wait_over(&self, id: &str, bound: Duration) -> Migration {
        let asked = self.running()[0];
        eventually("the migration is over", bound, || {
            let migration = self.admin(asked).migration(id)?;
            if migration.finished { Ok(migration) } else { Err(format!("{migration:?}")) }
        })
    }

    /// Waits until all replicas of each shard have the same state.
    ///
    /// # Panics
    /// When they do not come to agree.
    #[track_caller]
    pub fn wait_agreement(&self) {
        eventually("all replicas have one state", AGREE, || {
            self.disagreement().map_or(Ok(()), Err)
        });
    }

    /// Where replicas of a shard differ, in words: not yet at the same index,
    /// or with another hash there.
    #[must_use]
    pub fn disagreement(&self) -> Option<String> {
        let mut views = Vec::new();
        for id in self.running() {
            match self.admin(id).shards() {
                Ok(shards) => views.push((id, shards)),
                Err(error) => return Some(error),
            }
        }
        let (_, first) = views.first()?;
        for shard in first {
            let replica = |(node, view): &(u64, Vec<Shard>)| {
                let own = view.iter().find(|own| own.id == shard.id)?;
                Some((*node, own.epoch, own.applied?, own.state_hash.clone()?))
            };
            let states: Vec<_> = views.iter().filter_map(replica).collect();
            let expected = shard.voters().iter().filter(|node| self.is_running(**node)).count();
            let is_one = states.windows(2).all(|pair| {
                (pair[0].1, pair[0].2, &pair[0].3) == (pair[1].1, pair[1].2, &pair[1].3)
            });
            if !is_one || states.len() != expected {
                return Some(format!("shard {}, {:?}: {states:?}", shard.id, shard.voters()));
            }
        }
        None
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (id, seat) in &self.seats {
                let tail = seat.child.as_ref().map(Child::log_tail);
                eprintln!("node {id}: {}", tail.unwrap_or_else(|| "does not run".to_owned()));
            }
            // Last, because who reads only an end should see these.
            for path in ["/v1/status", "/v1/nodes", "/v1/shards", "/v1/migrations"] {
                let seen =
                    self.running().first().map(|id| self.admin(*id).request("GET", path, ""));
                eprintln!("{path}: {seen:?}");
            }
            if std::env::var_os("QUORATE_TESTS_KEEP").is_some() {
                let kept = self.temporary.take().map(TempDir::keep);
                eprintln!("data and logs are kept: {kept:?}");
            }
        }
        // The processes before their directories.
        self.seats.clear();
    }
}

fn log_filter() -> String {
    std::env::var("RUST_LOG").unwrap_or_else(|_| "info".to_owned())
}

/// The first port of a block in which nobody listens. Also for the addresses
/// of processes that are started by hand.
///
/// # Panics
/// When every block is in use.
#[must_use]
pub fn free_block() -> u16 {
    let first = u16::try_from(random() % u64::from(BLOCKS)).unwrap();
    let blocks = (first..BLOCKS).chain(0..first).map(|block| FIRST_PORT + block * BLOCK_PORTS);
    let is_free = |base: &u16| {
        (*base..base + BLOCK_PORTS)
            .all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
    };
    blocks.into_iter().find(is_free).expect("a block of ports is free")
}
