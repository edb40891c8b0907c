//! Who is connected: what `CLIENT LIST` shows and `CLIENT KILL` ends.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_types::{Blob, watch};
use tokio::time::Instant;

use crate::resp::Protocol;

/// The connections of one gateway.
#[derive(Default)]
pub(super) struct Roster {
    clients: Mutex<BTreeMap<u64, Arc<Client>>>,
}

/// A connection, as others see it.
pub(super) struct Client {
    pub(super) id: u64,
    /// Its end of the connection.
    pub(super) address: String,
    /// This node's end.
    pub(super) local_address: String,
    connected: Instant,
    kill: watch::Sender<bool>,
    state: Mutex<State>,
}

/// What changes while a connection lasts.
struct State {
    name: Blob,
    heard: Instant,
    command: &'static str,
    protocol: Protocol,
    /// Commands queued since `MULTI`.
    queued: Option<usize>,
}

/// A connection's place among the others, given up when dropped.
pub(super) struct Seat {
    roster: Arc<Roster>,
    pub(super) client: Arc<Client>,
    /// Becomes true when somebody ends the connection.
    pub(super) killed: watch::Receiver<bool>,
}

impl Roster {
    /// Enters a connection.
    pub(super) fn enter(self: &Arc<Self>, id: u64, address: String, local: String) -> Seat {
        let (kill, killed) = watch::channel(false);
        let now = Instant::now();
        let state = State {
            name: Blob::new(),
            heard: now,
            command: "NULL",
            protocol: Protocol::default(),
            queued: None,
        };
        let client = Arc::new(Client {
            id,
            address,
            local_address: local,
            connected: now,
            kill,
            state: Mutex::new(state),
        });
        self.clients.lock().insert(id, Arc::clone(&client));
        Seat { roster: Arc::clone(self), client, killed }
    }

    /// The connections that are open now, oldest first.
    pub(super) fn clients(&self) -> Vec<Arc<Client>> {
        self.clients.lock().values().cloned().collect()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.clients.lock().remove(&self.client.id);
    }
}

impl Client {
    pub(super) fn name(&self) -> Blob {
        self.state.lock().name.clone()
    }

    pub(super) fn set_name(&self, name: Blob) {
        self.state.lock().name = name;
    }

    /// Something arrived.
    pub(super) fn heard(&self) {
        self.state.lock().heard = Instant::now();
    }

    /// A command was read.
    pub(super) fn commanded(&self, command: &'static str) {
        self.state.lock().command = command;
    }

    /// A command was dealt with.
    pub(super) fn stands(&self, protocol: Protocol, queued: Option<usize>) {
        let mut state = self.state.lock();
        (state.protocol, state.queued) = (protocol, queued);
    }

    /// Ends the connection at once: what it runs may or may not take effect.
    pub(super) fn kill(&self) {
        self.kill.send(true);
    }

    /// A line of `CLIENT LIST`, in the order of Redis, without what there is
    /// none of here: buffers' sizes and file descriptors.
    pub(super) fn line(&self) -> String {
        let state = self.state.lock();
        let name = String::from_utf8_lossy(&state.name).into_owned();
        let flags = if state.queued.is_some() { "x" } else { "N" };
        let multi = state.queued.map_or(-1, |count| i64::try_from(count).unwrap_or(i64::MAX));
        format!(
            "id={} addr={} laddr={} name={name} age={} idle={} flags={flags} db=0 sub=0 psub=0 \
             ssub=0 multi={multi} cmd={} user=default redir=-1 resp={}\n",
            self.id,
            self.address,
            self.local_address,
            self.connected.elapsed().as_secs(),
            state.heard.elapsed().as_secs(),
            state.command,
            state.protocol.number(),
        )
    }
}
