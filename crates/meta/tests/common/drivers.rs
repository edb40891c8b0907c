//! Fakes behind the drivers' ports: a group of one that holds a registry,
//! nodes that answer from it, rows in memory that can fail.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_meta::{
    BoxError, Command, Directory, LocalReplica, MembershipError, Mutations, Page, Peers,
    ProposeError, Registry, Request, Response, Rows,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, KeyRange, NodeId, ReplicaId};

/// The metadata group: one registry, led in term 5 while `is_led`.
pub(crate) struct Group {
    pub(crate) state: Mutex<State>,
    directory: Option<Arc<Directory>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) registry: Registry,
    pub(crate) commands: Vec<Command>,
    pub(crate) initialized: Vec<Vec<(ReplicaId, NodeId)>>,
    pub(crate) is_deposed: bool,
    /// How many proposals are yet to end without an outcome, after they took
    /// effect.
    pub(crate) lost_outcomes: usize,
}

impl Group {
    /// A group that shows its view to the node it runs on, if any.
    pub(crate) fn new(directory: Option<Arc<Directory>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), directory })
    }

    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut State) -> T) -> T {
        edit(&mut self.state.lock().unwrap())
    }

    pub(crate) fn apply(&self, entry: &[u8]) -> Bytes {
        self.edit(|state| {
            state.commands.push(Command::decode(entry).unwrap());
            let index = state.registry.view().applied() + 1;
            let applied = state.registry.apply(index, entry).unwrap();
            if let Some(directory) = &self.directory {
                directory.learn_view(state.registry.view());
            }
            applied.reply.encode()
        })
    }

    fn try_propose(&self, entry: &[u8]) -> Result<Bytes, ProposeError> {
        if self.edit(|state| state.is_deposed) {
            return Err(ProposeError::NotLeader(Some(NodeId(2))));
        }
        let reply = self.apply(entry);
        self.edit(|state| match state.lost_outcomes.checked_sub(1) {
            Some(left) => {
                state.lost_outcomes = left;
                Err(ProposeError::Unavailable("no outcome in time".to_owned()))
            }
            None => Ok(reply),
        })
    }
}

impl LocalReplica for Group {
    fn authority(&self) -> Option<u64> {
        (!self.edit(|state| state.is_deposed)).then_some(5)
    }

    fn propose(&self, entry: Bytes, _: Duration) -> BoxFuture<Result<Bytes, ProposeError>> {
        let outcome = self.try_propose(&entry);
        Box::pin(async move { outcome })
    }

    fn initialize(&self, members: Vec<(ReplicaId, NodeId)>) -> BoxFuture<Result<(), BoxError>> {
        self.edit(|state| state.initialized.push(members));
        Box::pin(async { Ok(()) })
    }
}

type Answer = Arc<dyn Fn(NodeId, Request) -> Option<Response> + Send + Sync>;

/// Other nodes, as one closure; `None` is no answer.
pub(crate) struct Others {
    answer: Answer,
    /// Who is introduced at which address.
    pub(crate) at: BTreeMap<String, NodeId>,
    /// Addresses where this node is not welcome.
    pub(crate) unwelcome: BTreeSet<String>,
    pub(crate) asked: Mutex<Vec<(NodeId, Request)>>,
}

impl Others {
    pub(crate) fn answering(
        answer: impl Fn(NodeId, Request) -> Option<Response> + Send + Sync + 'static,
    ) -> Self {
        Self {
            answer: Arc::new(answer),
            at: BTreeMap::new(),
            unwelcome: BTreeSet::new(),
            asked: Mutex::default(),
        }
    }

    pub(crate) fn silent() -> Self {
        Self::answering(|_, _| None)
    }

    pub(crate) fn asked(&self) -> Vec<NodeId> {
        self.asked.lock().unwrap().iter().map(|(node, _)| *node).collect()
    }
}

impl Peers for Others {
    fn ask(&self, to: NodeId, request: Bytes, _: Duration) -> BoxFuture<Result<Bytes, BoxError>> {
        let request = Request::from_bytes(&request).unwrap();
        self.asked.lock().unwrap().push((to, request.clone()));
        let answer = (self.answer)(to, request);
        Box::pin(async move { answer.map(|answer| answer.to_bytes()).ok_or("no answer".into()) })
    }

    fn introduce(&self, address: &str) -> BoxFuture<Result<Option<NodeId>, MembershipError>> {
        let known = self.at.get(address).copied();
        let is_unwelcome = self.unwelcome.contains(address);
        Box::pin(async move {
            if is_unwelcome {
                Err(MembershipError::Refused("go away".to_owned()))
            } else {
                Ok(known)
            }
        })
    }
}

/// Rows in memory, in pages of two.
#[derive(Clone, Default)]
pub(crate) struct MemoryRows(Arc<Mutex<Stored>>);

#[derive(Default)]
pub(crate) struct Stored {
    pub(crate) rows: BTreeMap<Blob, Blob>,
    pub(crate) committed: Vec<(u64, Blob)>,
    pub(crate) commits_fail: bool,
}

impl MemoryRows {
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut Stored) -> T) -> T {
        edit(&mut self.0.lock().unwrap())
    }
}

impl Rows for MemoryRows {
    fn scan(&self, range: &KeyRange, rows_max: usize) -> Result<Page, BoxError> {
        let stored = self.0.lock().unwrap();
        let mut rows = stored.rows.iter().filter(|(key, _)| range.contains(key));
        let page = rows.by_ref().take(rows_max.min(2)).map(|(key, row)| (key.clone(), row.clone()));
        let page: Vec<_> = page.collect();
        Ok((page, rows.next().is_some()))
    }

    fn commit(&self, index: u64, host_row: Blob, mutations: Mutations) -> Result<(), BoxError> {
        self.edit(|stored| {
            if stored.commits_fail {
                return Err(io::Error::other("no space").into());
            }
            for (key, row) in mutations {
                match row {
                    Some(row) => stored.rows.insert(key, row),
                    None => stored.rows.remove(&key),
                };
            }
            stored.committed.push((index, host_row));
            Ok(())
        })
    }
}
