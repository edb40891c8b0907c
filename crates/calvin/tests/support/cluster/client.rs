//! A client of the model: one operation at a time, retried with one request id
//! until it is resolved, as the client core does it.

use std::collections::{BTreeMap, VecDeque};

use quorate_calvin::sequencer::shards_of;
use quorate_calvin::shard::Verdict;
use quorate_calvin::{Call, Execute, MapShard, Reply, Request, ShardMap, Submission};
use quorate_types::{Blob, ClientId, Epoch, RequestId, ShardId, TxnId};

use super::CallId;
use crate::support::checker::Observed;
use crate::support::procedures::Op;

/// One step of a client's script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Do(Op),
    /// Writes keys if the first is as it was when last watched.
    WriteIfUnchanged {
        keys: Vec<Blob>,
        value: Blob,
    },
}

/// The operation under way.
#[derive(Clone, Debug)]
pub struct Current {
    /// Its number in the history.
    pub number: usize,
    pub request: RequestId,
    pub call: Call,
    maybe_direct: bool,
    maybe_executed: bool,
    is_sequenced: bool,
    ordered: Option<(TxnId, ShardId)>,
    /// Whether a reply to `attempts` is outstanding.
    pub is_waiting: bool,
    attempts: u32,
}

impl Current {
    /// It may have taken effect. What was ordered is submitted again, which
    /// tells its place once more, or that it was forgotten.
    fn unclear(&mut self) {
        self.maybe_executed = true;
        self.ordered = None;
    }
}

/// Where a client's next message goes.
#[derive(Clone, Debug)]
pub enum Target {
    Shard(ShardId),
    Sequencer,
}

#[derive(Clone, Debug)]
pub struct Client {
    pub id: ClientId,
    pub script: VecDeque<Step>,
    pub current: Option<Current>,
    pub map: ShardMap,
    /// By key, the version last seen and the operation that saw it.
    pub watched: BTreeMap<Blob, (u64, usize)>,
    next_sequence: u64,
    attempts: u32,
    fences: bool,
}

/// What a reply means.
pub enum Conclusion {
    Ended(Observed),
    /// Go on with the next message.
    Continue,
    /// First learn a newer map.
    RefreshMap,
}

impl Client {
    pub fn new(id: u128, script: Vec<Step>, map: ShardMap, fences: bool) -> Self {
        Self {
            id: ClientId(id),
            script: script.into(),
            current: None,
            map,
            watched: BTreeMap::new(),
            next_sequence: 0,
            attempts: 0,
            fences,
        }
    }

    /// Takes the next operation of the script up.
    pub fn begin(&mut self, op: &Op, number: usize, birth: Epoch) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let request = RequestId { client: self.id, sequence, birth, ack_below: sequence };
        self.current = Some(Current {
            number,
            request,
            call: op.call(),
            maybe_direct: false,
            maybe_executed: false,
            is_sequenced: false,
            ordered: None,
            is_waiting: false,
            attempts: 0,
        });
    }

    fn home(&self, current: &Current) -> MapShard {
        let key = current.call.footprint.home_key().expect("operations touch something");
        self.map.locate(key).expect("the map covers every key").clone()
    }

    /// The next message of the operation under way.
    pub fn next_message(&mut self) -> Option<(Target, CallId, Request)> {
        let mut current = self.current.take()?;
        let shards = shards_of(&self.map, &current.call.footprint);
        let home = self.home(&current);
        let is_read = current.call.footprint.is_read_only();
        let (target, request) = if shards.len() == 1 && !current.is_sequenced {
            current.maybe_direct = true;
            let (request, call) = (current.request, current.call.clone());
            let execute = Execute { shard: home.shard, epoch: home.epoch, request, call };
            (Target::Shard(home.shard), Request::Execute(execute))
        } else if let Some((txn, home_then)) = current.ordered {
            let shard = if is_read { home_then } else { home.shard };
            (Target::Shard(shard), Request::Await { shard, request: current.request, txn })
        } else if current.maybe_direct && !is_read && self.fences {
            let key = current.call.footprint.home_key().cloned().unwrap_or_default();
            let (shard, request) = (home.shard, current.request);
            (Target::Shard(shard), Request::Fence { shard, request, home: key })
        } else {
            if is_read && current.maybe_executed {
                self.renew(&mut current);
            }
            current.is_sequenced = true;
            current.maybe_executed = true;
            let submission = Submission { request: current.request, call: current.call.clone() };
            (Target::Sequencer, Request::Submit(submission))
        };
        self.attempts += 1;
        current.attempts = self.attempts;
        current.is_waiting = true;
        let call = CallId { client: self.id.0 as usize, attempt: current.attempts };
        self.current = Some(current);
        Some((target, call, request))
    }

    /// A read asks again under a new request id: nobody has seen its answer.
    fn renew(&mut self, current: &mut Current) {
        current.request.sequence = self.next_sequence;
        self.next_sequence += 1;
        current.ordered = None;
        current.is_sequenced = false;
        current.maybe_executed = false;
    }

    /// Whether the operation waits for exactly this reply.
    pub fn awaits(&self, call: CallId) -> bool {
        self.current
            .as_ref()
            .is_some_and(|current| current.is_waiting && current.attempts == call.attempt)
    }

    pub fn conclude(&mut self, reply: &Reply) -> Conclusion {
        let Some(mut current) = self.current.take() else { return Conclusion::Continue };
        current.is_waiting = false;
        let is_read = current.call.footprint.is_read_only();
        let conclusion = match reply {
            Reply::Verdict(Verdict::Done(result)) => {
                return Conclusion::Ended(Observed::Result(result.clone()));
            }
            Reply::Verdict(_) => return Conclusion::Ended(Observed::Aborted),
            Reply::Expired => return Conclusion::Ended(Observed::Unknown),
            Reply::Ordered { txn, home } => {
                current.ordered = Some((*txn, *home));
                Conclusion::Continue
            }
            Reply::Moved => Conclusion::RefreshMap,
            Reply::Poisoned => {
                current.maybe_direct = false;
                current.is_sequenced = true;
                Conclusion::Continue
            }
            Reply::Gone if is_read => {
                self.renew(&mut current);
                Conclusion::Continue
            }
            // The result of something ordered was forgotten.
            Reply::Gone => return Conclusion::Ended(Observed::Unknown),
            Reply::Unknown => {
                current.unclear();
                Conclusion::RefreshMap
            }
            Reply::NotLeader(_) | Reply::Busy(_) => Conclusion::RefreshMap,
            // Not addressed to the clients of the model.
            _ => Conclusion::Continue,
        };
        self.current = Some(current);
        conclusion
    }

    /// No reply came in time.
    pub fn give_up_waiting(&mut self) {
        if let Some(current) = self.current.as_mut() {
            current.is_waiting = false;
            current.unclear();
        }
    }

    pub fn is_done(&self) -> bool {
        self.current.is_none() && self.script.is_empty()
    }
}
