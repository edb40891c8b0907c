//! A TCP proxy between real processes that misbehaves on demand. It needs no
//! privileges, unlike traffic control or packet filters.
//!
//! What it does to bytes is a [`Behaviour`], which may change at any time, and
//! may differ for each class of connections where the first bytes that a
//! client sends tell who it is ([`FaultProxy::start_classified`]). What it
//! really did is in its [`Tally`]: a fault that met no byte tested nothing.

mod classes;
mod flow;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quorate_types::runtime::spawn;
use quorate_types::watch;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use classes::{Control, Ledger, Tallies, View};
use flow::{Direction, Way};

pub use classes::{CLASSES_MAX, CLASSIFY_BYTES_MAX, Classify, Tally};

/// More connections than this through one proxy are refused.
pub const CONNECTIONS_MAX: usize = 1024;

/// How long to wait after the system refused to accept, say for want of file
/// descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// What happens to bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// They pass.
    #[default]
    Pass,
    /// They wait, and pass later: a partition that heals before TCP gives up.
    Stall,
    /// They vanish, and nobody is told. A connection that lost bytes is closed
    /// when they may pass again; TCP would never deliver the rest without them.
    Drop,
}

/// How a proxy behaves. Where bytes pass, everything else applies to both
/// directions of each connection, by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    /// New connections are closed at once.
    pub refuses: bool,
    /// From the client to the server.
    pub to_server: Flow,
    /// From the server to the client.
    pub to_client: Flow,
    /// How long bytes take.
    pub delay: Duration,
    /// So much longer at most, drawn for each piece that is read; bytes do not
    /// overtake each other.
    pub jitter: Duration,
    /// How many bytes pass in a second at most.
    pub bytes_per_second: Option<NonZeroU32>,
    /// One byte passes, then nothing for so long (a slow loris).
    pub trickle: Option<Duration>,
    /// Of each so many bytes of a connection one has a bit flipped.
    pub flip_every_bytes: Option<NonZeroU64>,
    /// What jitter and the bits to flip are drawn from. Which bit of which byte
    /// of a connection is flipped depends on nothing else but the connection's
    /// number, in the order in which they were accepted.
    pub seed: u64,
}

impl Behaviour {
    /// Everything passes.
    #[must_use]
    pub fn healthy() -> Self {
        Self::default()
    }

    /// Nothing passes, and what was under way is lost.
    #[must_use]
    pub fn black_hole() -> Self {
        Self { to_server: Flow::Drop, to_client: Flow::Drop, ..Self::default() }
    }

    /// Nothing passes until it heals.
    #[must_use]
    pub fn stalled() -> Self {
        Self { to_server: Flow::Stall, to_client: Flow::Stall, ..Self::default() }
    }
}

/// Listens on a free loopback port and forwards to one server. Dropping it
/// closes the port and every connection.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    control: watch::Sender<Arc<Control>>,
    connections: Arc<AtomicUsize>,
    tallies: Tallies,
    listening: AbortHandle,
}

impl FaultProxy {
    /// Starts a healthy proxy to `server`, to which all connections are alike.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        Self::listen(server, None).await
    }

    /// Starts a healthy proxy to `server` that tells its clients apart.
    ///
    /// `classify` is shown what a client has sent so far, again and again until
    /// it knows the client's class. Until then nothing is forwarded, so that a
    /// class that is cut off loses its first byte too; the server must not be
    /// the one to speak first. Who is not recognized within
    /// [`CLASSIFY_BYTES_MAX`] bytes or a few seconds has no class.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_classified(server: SocketAddr, classify: Classify) -> io::Result<Self> {
        Self::listen(server, Some(classify)).await
    }

    async fn listen(server: SocketAddr, classify: Option<Classify>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (control, changes) = watch::channel(Arc::default());
        let connections = Arc::new(AtomicUsize::new(0));
        let tallies = Tallies::default();
        let door = Door {
            server,
            classify,
            changes,
            connections: Arc::clone(&connections),
            tallies: tallies.clone(),
        };
        let listening = spawn(door.listen(listener)).abort_handle();
        Ok(Self { address, control, connections, tallies, listening })
    }

    /// Where clients connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes how it behaves, open connections included, save towards classes
    /// that have a rule of their own.
    pub fn set(&self, behaviour: Behaviour) {
        self.change(|control| control.others = behaviour);
    }

    /// Changes how it behaves towards one class, open connections included. At
    /// most [`CLASSES_MAX`] classes have rules; more are not taken.
    pub fn set_class(&self, class: u64, behaviour: Behaviour) {
        self.change(|control| control.set_class(class, behaviour));
    }

    /// Lets everything pass for everyone.
    pub fn heal(&self) {
        self.change(Control::heal);
    }

    /// How it behaves towards those whose class has no rule.
    #[must_use]
    pub fn behaviour(&self) -> Behaviour {
        self.control.borrow().others
    }

    /// How it behaves towards a class.
    #[must_use]
    pub fn behaviour_of(&self, class: u64) -> Behaviour {
        self.control.borrow().behaviour(Some(class))
    }

    /// Resets every open connection.
    pub fn close_connections(&self) {
        self.change(|control| control.closings += 1);
    }

    /// Resets every open connection of a class.
    pub fn close_class(&self, class: u64) {
        self.change(|control| control.close_class(class));
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// What it has done so far, to all.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tallies.sum()
    }

    /// What it has done so far to a class.
    #[must_use]
    pub fn tally_of(&self, class: u64) -> Tally {
        self.tallies.of(Some(class))
    }

    fn change(&self, change: impl FnOnce(&mut Control)) {
        self.control.modify(|control| {
            change(Arc::make_mut(control));
            true
        });
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        // The connections end with their view of `control`.
        self.listening.abort();
    }
}

/// What every connection is served with.
#[derive(Clone)]
struct Door {
    server: SocketAddr,
    classify: Option<Classify>,
    changes: watch::Receiver<Arc<Control>>,
    connections: Arc<AtomicUsize>,
    tallies: Tallies,
}

impl Door {
    async fn listen(self, listener: TcpListener) {
        let mut number = 0;
        loop {
            let Ok((client, _)) = listener.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let open = Open::new(&self.connections);
            if open.count > CONNECTIONS_MAX {
                refuse(&client, &self.tallies, None);
                continue;
            }
            number += 1;
            let door = self.clone();
            drop(spawn(async move {
                door.serve(client, number).await;
                drop(open);
            }));
        }
    }

    /// Forwards both ways until either direction fails, both have ended, the
    /// connection is closed on demand, or the proxy is gone.
    async fn serve(self, mut client: TcpStream, number: u64) {
        let mut anyone = View::new(self.changes.clone(), None);
        let (class, begun) = match self.classify {
            None => (None, Vec::new()),
            Some(classify) => tokio::select! {
                biased;
                () = anyone.closed() => return reset(&client),
                introduced = classes::introduce(&mut client, classify) => match introduced {
                    Ok(introduced) => introduced,
                    Err(_) => return reset(&client),
                }
            },
        };
        let mut view = View::new(self.changes, class);
        if view.behaviour().refuses {
            return refuse(&client, &self.tallies, class);
        }
        let Ok(mut server) = TcpStream::connect(self.server).await else { return };
        // Without it bytes only take longer.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ledger = Arc::new(Ledger::open(self.tallies, class));
        let is_orderly = {
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let direction = |way| Direction::new(way, number, view.clone(), Arc::clone(&ledger));
            let (there, back) = (direction(Way::ToServer), direction(Way::ToClient));
            let forward = async {
                tokio::try_join!(
                    there.pump(begun, from_client, to_server),
                    back.pump(Vec::new(), from_server, to_client)
                )
            };
            tokio::select! {
                biased;
                () = view.closed() => {
                    ledger.count(|tally| tally.closed += 1);
                    false
                }
                end = forward => end.is_ok(),
            }
        };
        if !is_orderly {
            reset(&client);
            reset(&server);
        }
    }
}

/// A reset rather than an orderly end; failing that, an end.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

fn refuse(client: &TcpStream, tallies: &Tallies, class: Option<u64>) {
    tallies.count(class, |tally| tally.refused += 1);
    reset(client);
}

/// Counts a connection while it is open.
struct Open {
    connections: Arc<AtomicUsize>,
    count: usize,
}

impl Open {
    fn new(connections: &Arc<AtomicUsize>) -> Self {
        let count = connections.fetch_add(1, Ordering::Relaxed) + 1;
        Self { connections: Arc::clone(connections), count }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
