//! The thin layer that lets a [`Core`] run: reads time, moves frames between
//! core and transport, publishes the view. It decides nothing.

mod link;
mod tcp;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use quorate_types::env::{Clock, SplitMix};
use quorate_types::hello::Hello;
use quorate_types::{ClusterId, NodeId, buggify, runtime, watch};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use self::tcp::Tcp;
use crate::config::{Config, TcpConfig};
use crate::core::{Core, Identity, Stats};
use crate::error::GossipError;
use crate::member::{Event, Member, Status};
use crate::transport::{Inbound, Transport};
use quorate_types::anti_entropy::State;

/// Frames that wait for the core; beyond it connections are not read on.
const INBOUND_MAX: usize = 1024;
/// Frames the core takes before it looks at its timers again.
const INBOUND_BATCH_MAX: usize = 64;
/// Events that wait for a subscriber. One that falls further behind misses
/// events and should look at the view, which is never behind.
const SUBSCRIPTION_EVENTS_MAX: usize = 1024;
/// Subscribers at a time; the oldest makes room.
const SUBSCRIBERS_MAX: usize = 64;
/// Seeds handed over at a time.
const MAILBOX_SEEDS_MAX: usize = 1024;
/// Where a deadline of "never" is cut off.
const SLEEP_MAX: Duration = Duration::from_secs(3600);

/// What a listener of our own asks about a caller, beyond what gossip itself
/// checks; the text of a refusal goes to the caller's operator.
pub type Judge = Arc<dyn Fn(&Hello) -> Result<(), String> + Send + Sync>;

/// Everything a driver starts from.
pub struct Setup<S> {
    /// How this node introduces itself; protocol and lane are filled in. Its
    /// node, address and incarnation are those the core speaks for.
    pub hello: Hello,
    /// The protocol's clocks and limits.
    pub config: Config,
    /// The transport's deadlines and limits.
    pub tcp: TcpConfig,
    /// The state to replicate, shared with its owner.
    pub state: Arc<Mutex<S>>,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
}

/// What the owner asked for and the core has not yet been told. Requests of
/// a kind merge, so the mailbox is bounded.
#[derive(Default)]
struct Mailbox {
    changed: bool,
    leave: bool,
    seeds: BTreeSet<String>,
}

struct Shared {
    mailbox: Mutex<Mailbox>,
    wake: Notify,
    subscribers: Mutex<Vec<mpsc::Sender<Event>>>,
    stats: Mutex<Stats>,
}

/// A running node of the gossip. Dropping it ends everything at once, as a
/// crash would.
pub struct Driver {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    tcp: Option<Arc<Tcp>>,
    view: watch::Receiver<Vec<Member>>,
    left: watch::Receiver<bool>,
    leave_deadline: Duration,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl Driver {
    /// Starts gossip over TCP. Nobody listens yet: hand in connections with
    /// [`Driver::serve`] or open a listener with [`Driver::listen`].
    ///
    /// # Errors
    /// [`GossipError`] for an identity or configuration that cannot work.
    pub fn start<S: State>(setup: Setup<S>) -> Result<Self, GossipError> {
        let (inbound, queue) = mpsc::channel(INBOUND_MAX);
        let tcp = Arc::new(Tcp::new(setup.hello.clone(), setup.tcp.clone(), inbound));
        let transport: Arc<dyn Transport> = Arc::<Tcp>::clone(&tcp);
        let mut driver = Self::start_over(setup, transport, queue)?;
        driver.tcp = Some(tcp);
        Ok(driver)
    }

    /// Starts gossip over another transport, which brings its frames in
    /// through the other end of `inbound`.
    ///
    /// # Errors
    /// As [`Driver::start`].
    pub fn start_over<S: State>(
        setup: Setup<S>,
        transport: Arc<dyn Transport>,
        inbound: mpsc::Receiver<Inbound>,
    ) -> Result<Self, GossipError> {
        let Setup { hello, config, tcp, state, clock } = setup;
        let identity = Identity {
            node: hello.node,
            address: String::from_utf8_lossy(&hello.address).into_owned(),
            incarnation: hello.incarnation,
        };
        let rng = Box::new(SplitMix::new(runtime::random()));
        let core = Core::new(identity, config, state, rng, clock.monotonic())?;
        let (view_sender, view) = watch::channel(core.members());
        let (left_sender, left) = watch::channel(false);
        let shared = Arc::new(Shared {
            mailbox: Mutex::default(),
            wake: Notify::new(),
            subscribers: Mutex::default(),
            stats: Mutex::default(),
        });
        let work = Loop {
            core,
            clock,
            inbound,
            transport: Arc::clone(&transport),
            shared: Arc::clone(&shared),
            view: view_sender,
            left: left_sender,
        };
        let task = runtime::spawn(work.run()).abort_handle();
        Ok(Self {
            shared,
            transport,
            tcp: None,
            view,
            left,
            leave_deadline: tcp.leave_deadline,
            tasks: Mutex::new(vec![task]),
        })
    }

    /// Takes over a connection that a listener has shaken hands with
    /// ([`quorate_types::hello::answer`]) and that asks for gossip. Reads it
    /// in a task of its own until it ends or misbehaves; what follows the
    /// handshake and was read already is in `buffer`.
    ///
    /// # Errors
    /// Why the connection was dropped instead: a lane that does not exist, a
    /// full house, or a driver that does not speak TCP.
    pub fn serve<C>(&self, connection: C, hello: &Hello, buffer: BytesMut) -> Result<(), String>
    where
        C: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let tcp = self.tcp.as_ref().ok_or("this node's gossip has a transport of its own")?;
        tcp.serve(connection, hello, buffer)
    }

    /// What gossip itself has against a caller, or the answer to give it.
    ///
    /// # Errors
    /// The text for the caller's operator.
    pub fn judge(&self, hello: &Hello) -> Result<Hello, String> {
        let tcp = self.tcp.as_ref().ok_or("this node's gossip has a transport of its own")?;
        tcp.judge(hello)
    }

    /// Serves a listener of our own, for nodes that speak nothing but gossip.
    /// `judge` is asked after gossip's own checks.
    pub fn listen(&self, listener: TcpListener, judge: Judge) {
        if let Some(tcp) = &self.tcp {
            let task = runtime::spawn(Arc::clone(tcp).listen(listener, judge));
            self.tasks.lock().push(task.abort_handle());
        }
    }

    /// From now on this node introduces itself, and judges others, as a
    /// member of this cluster.
    pub fn set_cluster(&self, cluster: ClusterId) {
        if let Some(tcp) = &self.tcp {
            tcp.set_cluster(cluster);
        }
    }

    /// Calls the nodes at these addresses until they are members. At most
    /// [`Config::seeds_max`] are remembered.
    pub fn join(&self, seeds: &[String]) {
        let mut mailbox = self.shared.mailbox.lock();
        let room = MAILBOX_SEEDS_MAX.saturating_sub(mailbox.seeds.len());
        mailbox.seeds.extend(seeds.iter().take(room).cloned());
        drop(mailbox);
        self.shared.wake.notify_one();
    }

    /// Tells that the shared state was changed by its owner, so that it
    /// spreads at once instead of with the next probe.
    pub fn notify_changed(&self) {
        self.shared.mailbox.lock().changed = true;
        self.shared.wake.notify_one();
    }

    /// Says goodbye and waits, for [`TcpConfig::leave_deadline`] at most,
    /// until that is written out. [`Driver::join`] undoes it.
    pub async fn leave(&self) {
        self.shared.mailbox.lock().leave = true;
        self.shared.wake.notify_one();
        let mut left = self.left.clone();
        let goodbye = async {
            if left.wait_for(|left| *left).await.is_ok() {
                self.transport.flushed().await;
            }
        };
        if tokio::time::timeout(self.leave_deadline, goodbye).await.is_err() {
            tracing::warn!("left without having told everybody");
        }
    }

    /// The membership as this node sees it, itself included, by node id.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        self.view.borrow().clone()
    }

    /// The nodes that this node takes for alive, itself included.
    #[must_use]
    pub fn alive(&self) -> Vec<NodeId> {
        let view = self.view.borrow();
        let alive = view.iter().filter(|member| member.status == Status::Alive);
        alive.map(|member| member.node).collect()
    }

    /// The same as [`Self::members`], to be watched.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Vec<Member>> {
        self.view.clone()
    }

    /// A stream of all events from now on. A subscriber that falls far
    /// behind misses some; the view is always whole.
    #[must_use]
    pub fn events(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(SUBSCRIPTION_EVENTS_MAX);
        let mut subscribers = self.shared.subscribers.lock();
        if subscribers.len() >= SUBSCRIBERS_MAX {
            subscribers.remove(0);
        }
        subscribers.push(sender);
        receiver
    }

    /// What was dropped so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        *self.shared.stats.lock()
    }

    /// Ends all tasks and connections at once, without a goodbye.
    pub fn shutdown(&self) {
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        self.transport.close();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// The task around the core.
struct Loop<S: State> {
    core: Core<Arc<Mutex<S>>>,
    clock: Arc<dyn Clock>,
    inbound: mpsc::Receiver<Inbound>,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
    view: watch::Sender<Vec<Member>>,
    left: watch::Sender<bool>,
}

impl<S: State> Loop<S> {
    async fn run(mut self) {
        loop {
            self.publish();
            let wait = self.core.poll_timeout().saturating_sub(self.clock.monotonic());
            let first = tokio::select! {
                biased;
                () = self.shared.wake.notified() => None,
                inbound = self.inbound.recv() => match inbound {
                    Some(inbound) => Some(inbound),
                    None => return,
                },
                () = tokio::time::sleep(wait.min(SLEEP_MAX)) => None,
            };
            self.take_mail();
            self.take_inbound(first);
            let now = self.clock.monotonic();
            if self.core.poll_timeout() <= now {
                self.core.handle_timer(now);
            }
        }
    }

    fn take_mail(&mut self) {
        let mail = std::mem::take(&mut *self.shared.mailbox.lock());
        let now = self.clock.monotonic();
        if mail.changed {
            self.core.state_changed(now);
        }
        if !mail.seeds.is_empty() {
            self.left.send(false);
            self.core.join(&Vec::from_iter(mail.seeds), now);
        }
        if mail.leave {
            self.core.leave(now);
            // Before anyone hears that it is done, the goodbyes are queued.
            self.publish();
            self.left.send(true);
        }
    }

    /// A batch at a time, so that neither a flood of frames starves the
    /// timers nor a late timer condemns peers whose acks already lie here.
    fn take_inbound(&mut self, first: Option<Inbound>) {
        let mut next = first;
        for _ in 0..INBOUND_BATCH_MAX {
            let Some(inbound) = next.take().or_else(|| self.inbound.try_recv().ok()) else {
                return;
            };
            let now = self.clock.monotonic();
            match inbound {
                Inbound::Frame { .. } if buggify!("gossip loses a frame") => {}
                Inbound::Frame { from, lane, frame } => {
                    self.core.handle_frame(from, lane, &frame, now);
                }
                Inbound::Connection(event) => self.core.handle_connection(event, now),
            }
        }
    }

    fn publish(&mut self) {
        while let Some(transmit) = self.core.poll_transmit() {
            self.transport.send(transmit);
        }
        while let Some(event) = self.core.poll_event() {
            tracing::debug!(?event, "gossip");
            // A subscriber that is behind misses the event; one that is gone
            // is forgotten.
            self.shared.subscribers.lock().retain(|subscriber| {
                !matches!(
                    subscriber.try_send(event.clone()),
                    Err(mpsc::error::TrySendError::Closed(_))
                )
            });
        }
        *self.shared.stats.lock() = self.core.stats();
        let members = self.core.members();
        self.view.modify(|view| {
            let changed = *view != members;
            if changed {
                *view = members;
            }
            changed
        });
    }
}
