//! One process with a replica of every group. It is told what to do line by line,
//! and answers likewise.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use quorate_engine::{Engine, RedbConfig, RedbEngine};
use quorate_raft::tcp::{Mesh, Standalone};
use quorate_raft::{Group, GroupClass, GroupSpec, Host, SmallMachine, SmallState, StateMachine};
use quorate_types::disk::DirectoryDisk;
use quorate_types::env::{Rng, SplitMix};
use quorate_types::hello::Hello;
use quorate_types::{GroupId, NodeId, ReplicaId, ShardId};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::requests::Requests;
use crate::rows::{self, Rows};
use crate::{Outcome, connections};

/// The nodes.
pub(crate) const NODES: [u64; 3] = [1, 2, 3];
/// How many groups are created at a time: they share the log's commits.
const CREATED_AT_ONCE: usize = 64;
const PAYLOAD_BYTES: usize = 256;
const DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    #[arg(long)]
    pub(crate) id: u64,
    #[arg(long)]
    pub(crate) groups: u64,
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Where it listens; anywhere the first time.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(crate) listen: String,
    /// Keeps all groups awake.
    #[arg(long)]
    pub(crate) awake: bool,
    /// Keeps the state of groups in an engine.
    #[arg(long)]
    pub(crate) rows: bool,
    #[arg(long)]
    pub(crate) snapshot_mib_per_second: Option<u64>,
}

/// What a process is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// Where all listen; creates the groups.
    Begin {
        addresses: BTreeMap<u64, String>,
    },
    /// Hands every group to its node, as far as it leads it.
    Settle,
    Status,
    /// Makes a state of this size.
    Fill {
        mib: u64,
    },
    /// Writes to the groups that it leads, so many commands at a time.
    Load {
        clients: u64,
    },
    /// Takes requests of clients to the first group.
    Attend,
    /// Says when it has written to each of these as its leader.
    Serve {
        groups: Vec<u64>,
    },
}

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Listening { address: String },
    Begun,
    Settled,
    Status(Status),
    Filled,
    Loading,
    Attending { address: String },
    Served { group: u64, term: u64 },
}

/// How its groups are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) resting: u64,
    /// The groups that it leads, and their terms.
    pub(crate) leads: BTreeMap<u64, u64>,
    /// Commands that were done.
    pub(crate) done: u64,
    /// How the first group is, where groups have rows.
    pub(crate) state: Option<State>,
}

/// How far a replica and its snapshots are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    pub(crate) applied: u64,
    pub(crate) purged: u64,
    pub(crate) snapshots_sent: u64,
    pub(crate) snapshot_bytes_received: u64,
}

/// The node that is to lead a group.
pub(crate) fn home(group: u64) -> u64 {
    1 + group % NODES.len() as u64
}

/// Counts commands.
#[derive(Default)]
struct Counter(u64);

impl SmallState for Counter {
    fn apply(&mut self, _command: &[u8]) -> Bytes {
        self.0 += 1;
        self.save()
    }

    fn save(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.to_be_bytes())
    }

    fn load(saved: &[u8]) -> Result<Self, String> {
        let bytes = saved.try_into().map_err(|_| "not eight bytes".to_owned())?;
        Ok(Self(u64::from_be_bytes(bytes)))
    }
}

fn say(answer: &Answer) -> Outcome {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

// The processes share the machine's processors: more threads get in each other's way.
#[tokio::main(worker_threads = 1)]
pub(crate) async fn run(options: &Options) -> Outcome {
    // Whoever started it may end before it: then its input ends.
    let (orders_in, orders) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if orders_in.send(line).is_err() {
                break;
            }
        }
    });
    let listener = TcpListener::bind(&options.listen).await?;
    say(&Answer::Listening { address: listener.local_addr()?.to_string() })?;
    let mut listener = Some(listener);
    let mut node = None;
    let done: Arc<AtomicU64> = Arc::default();
    while let Ok(line) = tokio::task::block_in_place(|| orders.recv()) {
        match (serde_json::from_str(&line)?, &node) {
            (Order::Begin { addresses }, None) => {
                let listener = listener.take().ok_or("told to begin twice")?;
                node = Some(begin(options, addresses, listener).await?);
                say(&Answer::Begun)?;
            }
            (Order::Settle, Some(Node { host, .. })) => {
                settle(options.id, host).await;
                say(&Answer::Settled)?;
            }
            (Order::Status, Some(Node { host, .. })) => {
                say(&Answer::Status(status(options, host, &done)))?;
            }
            (Order::Fill { mib }, Some(Node { host, .. })) => {
                fill(host, mib).await?;
                say(&Answer::Filled)?;
            }
            (Order::Load { clients }, Some(Node { host, .. })) => {
                for client in 0..clients {
                    let mut chance = SplitMix::new(options.id << 32 | client);
                    let (groups, done) = (host.groups(), Arc::clone(&done));
                    let rows = options.rows;
                    tokio::spawn(async move {
                        loop {
                            write_somewhere(&groups, rows, &mut chance, &done).await;
                        }
                    });
                }
                say(&Answer::Loading)?;
            }
            (Order::Attend, Some(node)) => {
                say(&Answer::Attending { address: node.attend(NodeId(options.id)).await? })?;
            }
            (Order::Serve { groups }, Some(Node { host, .. })) => {
                for group in groups.into_iter().filter_map(|id| host.group(GroupId(id))) {
                    tokio::spawn(serve(group));
                }
            }
            (order, _) => return Err(format!("not now: {order:?}").into()),
        }
    }
    Ok(())
}

async fn begin(
    options: &Options,
    addresses: BTreeMap<u64, String>,
    listener: TcpListener,
) -> Outcome<Node> {
    let peers = addresses.into_iter().map(|(id, address)| (NodeId(id), address)).collect();
    let mut node = Standalone::new(NodeId(options.id), peers, &options.dir);
    if options.awake {
        node.host.quiet_after = None;
    }
    if let Some(mib) = options.snapshot_mib_per_second {
        node.host.snapshot_bytes_per_second_max = (mib > 0).then_some(mib << 20);
    }
    let (host, mesh) = node.start(listener)?;
    let disk = DirectoryDisk::open(options.dir.join("machines"))?;
    let engine = if options.rows {
        let engine = RedbEngine::open(&disk, "engine.redb", RedbConfig::default())?;
        Some(Arc::new(engine) as Arc<dyn Engine>)
    } else {
        None
    };
    let ids: Vec<u64> = (1..=options.groups).collect();
    for some in ids.chunks(CREATED_AT_ONCE) {
        let mut specs = Vec::new();
        for &id in some {
            let members = NODES.map(|node| (ReplicaId(id * 10 + node), NodeId(node)));
            let machine: Box<dyn StateMachine> = match &engine {
                Some(engine) => Box::new(Rows::seeded(Arc::clone(engine), ShardId(id), &members)?),
                None => {
                    let machine = SmallMachine::<Counter>::open(&disk, &id.to_string())?;
                    Box::new(machine.seeded(&members))
                }
            };
            specs.push(GroupSpec {
                group: GroupId(id),
                replica: ReplicaId(id * 10 + options.id),
                class: GroupClass::Shard,
                machine,
            });
        }
        let created = specs.into_iter().map(|spec| {
            let host = host.clone();
            tokio::spawn(async move { host.create(spec).await.map(drop) })
        });
        for created in created.collect::<Vec<_>>() {
            created.await??;
        }
    }
    Ok(Node { host, mesh, engine })
}

/// What a process runs.
struct Node {
    host: Host,
    mesh: Mesh,
    engine: Option<Arc<dyn Engine>>,
}

impl Node {
    /// Listens for clients, and says where.
    async fn attend(&self, own: NodeId) -> Outcome<String> {
        let group = self.host.groups().into_iter().next().ok_or("there is no group")?;
        let engine = self.engine.clone().ok_or("there is no engine")?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let welcome = move |_: &Hello| Ok(connections::hello(own));
        self.mesh.listen(listener, Arc::new(Requests::new(group, engine)), Arc::new(welcome));
        Ok(address)
    }
}

/// A leadership that cannot be handed over now is asked for again later.
async fn settle(own: u64, host: &Host) {
    for group in host.groups() {
        let to = home(group.id().0);
        if to != own && group.leadership().borrow().leading {
            drop(group.transfer_leader(ReplicaId(group.id().0 * 10 + to)).await);
        }
    }
}

/// Has the groups that it leads write as many rows as make such a state.
async fn fill(host: &Host, mib: u64) -> Outcome {
    for group in host.groups() {
        for nth in 0..rows::fills(mib) {
            group.propose(rows::fill(nth), DEADLINE).await?;
        }
    }
    Ok(())
}

fn status(options: &Options, host: &Host, done: &AtomicU64) -> Status {
    let leads = host.groups().into_iter().filter_map(|group| {
        let now = *group.leadership().borrow();
        (now.leading && now.noop_applied).then_some((group.id().0, now.term))
    });
    let metrics = host.metrics();
    let first = host.groups().into_iter().next().filter(|_| options.rows);
    Status {
        resting: metrics.groups_resting,
        leads: leads.collect(),
        done: done.load(Ordering::Relaxed),
        state: first.map(|group| State {
            applied: group.applied(),
            purged: group.status().purged.unwrap_or_default(),
            snapshots_sent: metrics.snapshots_sent,
            snapshot_bytes_received: metrics.snapshot_bytes_received,
        }),
    }
}

async fn write_somewhere(groups: &[Group], rows: bool, chance: &mut SplitMix, done: &AtomicU64) {
    // From some group on, the next one that is led here.
    let (before, behind) =
        groups.split_at(usize::try_from(chance.below(groups.len() as u64)).unwrap_or(0));
    let mut around = behind.iter().chain(before);
    let Some(group) = around.find(|group| group.leadership().borrow().leading) else {
        tokio::time::sleep(PAUSE).await;
        return;
    };
    let command = if rows {
        rows::write(chance.below(rows::FILLED_AT_ONCE), &[0; PAYLOAD_BYTES])
    } else {
        Bytes::from_static(&[0; PAYLOAD_BYTES])
    };
    if group.propose(command, DEADLINE).await.is_ok() {
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes to a group as soon as it is led from here.
async fn serve(group: Group) {
    let mut leadership = group.leadership();
    loop {
        if leadership.wait_for(|now| now.leading && now.noop_applied).await.is_err() {
            return;
        }
        let command = Bytes::from_static(&[0; PAYLOAD_BYTES]);
        if let Ok(proposed) = group.propose(command, DEADLINE).await {
            drop(say(&Answer::Served { group: group.id().0, term: proposed.term }));
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
