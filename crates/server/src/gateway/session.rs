//! What a connection remembers between commands: its protocol, its
//! transaction, what it watches.

use std::sync::Arc;

use quorate_calvin::limits::CALL_BYTES_MAX;
use quorate_types::Blob;

use super::limits::GatewayLimits;
use super::local;
use super::pipeline::{Finish, Watched, Work};
use super::roster::{Client, Roster};
use crate::backend::Backend;
use crate::commands::{Command, Hello, Local, Op, ParseError, Program, Watch, lookup};
use crate::metrics::Metrics;
use crate::resp::{Protocol, Reply, Request};

/// What everything on a node's gateway shares.
pub(super) struct Context<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) limits: &'a GatewayLimits,
    pub(super) metrics: &'a Metrics,
    pub(super) roster: &'a Roster,
}

/// What is to be done about a request.
pub(super) enum Action {
    /// It is answered.
    Answer(Reply),
    /// It is answered, and the connection ends.
    End(Reply),
    /// It has to be executed.
    Execute(Work, Finish),
}

impl Action {
    fn error(text: &str) -> Self {
        Self::Answer(Reply::error(text))
    }
}

/// See the module.
pub(super) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) protocol: Protocol,
    /// The connection ends once everything is answered.
    pub(super) is_over: bool,
    transaction: Option<Transaction>,
    watches: Vec<Watch>,
    /// A `WATCH` was sent and its keys could not be read: the `EXEC` that
    /// relies on it must not run unguarded.
    watch_refused: bool,
}

/// What was queued since `MULTI`.
#[derive(Default)]
struct Transaction {
    queued: Vec<Queued>,
    bytes: usize,
    /// A command could not be queued; `EXEC` will refuse.
    poisoned: bool,
}

enum Queued {
    Data(Op),
    Local(Local),
    Hello(Hello),
    /// What cannot be done, as options that make no sense: as in Redis, `EXEC`
    /// says so in its place.
    Mistaken(String),
}

/// Why a request is no command.
enum Unreadable {
    /// There is no such command, or not with so many arguments. A transaction
    /// cannot hold it.
    Unknown(String),
    /// Its options make no sense.
    Mistaken(String),
}

/// A page of keys is weaker than a transaction, so it cannot be part of one.
const SCAN_IN_MULTI: &str = "ERR SCAN is not available inside a transaction; KEYS is";

/// The replies of one `EXEC` are all in one protocol.
const PROTOCOL_IN_MULTI: &str =
    "ERR HELLO cannot change the protocol inside a transaction; say it before MULTI";

/// What an operation costs besides its words and its keys, at the most.
const OP_OVERHEAD_BYTES: usize = 32;

/// What a watched key costs: it is a condition and names a lock.
fn watch_bytes(key: &Blob) -> usize {
    const OVERHEAD_BYTES: usize = 32;
    2 * key.len() + OVERHEAD_BYTES
}

pub(super) const LOADING: &str = "LOADING this node does not serve yet, retry";

impl Session {
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            protocol: Protocol::default(),
            is_over: false,
            transaction: None,
            watches: Vec::new(),
            watch_refused: false,
        }
    }

    /// Its number, as clients see it.
    pub(super) fn number(&self) -> i64 {
        i64::try_from(self.client.id).unwrap_or(i64::MAX)
    }

    /// Decides about a request.
    pub(super) fn handle(&mut self, request: &Request, context: &Context<'_>) -> Action {
        let action = self.decide(request, context);
        let queued = self.transaction.as_ref().map(|transaction| transaction.queued.len());
        self.client.stands(self.protocol, queued);
        action
    }

    fn decide(&mut self, request: &Request, context: &Context<'_>) -> Action {
        let command = match read_command(request, &self.client, context.metrics) {
            Ok(command) => command,
            Err(Unreadable::Mistaken(text)) if self.transaction.is_some() => {
                return self.queue(Queued::Mistaken(text), request.wire_bytes, context);
            }
            Err(Unreadable::Unknown(text) | Unreadable::Mistaken(text)) => {
                self.poison();
                return Action::error(&text);
            }
        };
        match command {
            Command::Data(op) => self.data(op, request.wire_bytes, context),
            Command::Local(local) => self.local(local, request.wire_bytes, context),
            Command::Multi => self.multi(),
            Command::Exec => self.exec(context),
            Command::Discard => self.discard(),
            Command::Watch(keys) => self.watch(keys, context),
            Command::Unwatch => self.unwatch(request.wire_bytes, context),
            Command::Scan(_) if self.transaction.is_some() => {
                self.queue(Queued::Mistaken(SCAN_IN_MULTI.into()), request.wire_bytes, context)
            }
            Command::Hello(hello) if self.transaction.is_some() => {
                self.queue(Queued::Hello(hello), request.wire_bytes, context)
            }
            Command::Scan(_) if !context.backend.serving() => Action::error(LOADING),
            Command::Scan(request) => Action::Execute(Work::Scan(request), Finish::Single),
            Command::Hello(hello) => Action::Answer(self.hello(hello)),
            Command::Reset => {
                self.client.set_name(Blob::new());
                *self = Self::new(Arc::clone(&self.client));
                Action::Answer(Reply::simple("RESET"))
            }
            Command::Quit => Action::End(Reply::ok()),
        }
    }

    fn poison(&mut self) {
        if let Some(transaction) = &mut self.transaction {
            transaction.poisoned = true;
        }
    }

    fn data(&mut self, mut op: Op, bytes: usize, context: &Context<'_>) -> Action {
        if let Op::Append { value_bytes_max, .. } = &mut op {
            *value_bytes_max = u64::try_from(context.limits.bulk_bytes_max).unwrap_or(u64::MAX);
        }
        if self.transaction.is_some() {
            let bytes = bytes + OP_OVERHEAD_BYTES + op.footprint_bytes();
            return self.queue(Queued::Data(op), bytes, context);
        }
        execute(&Program::single(op), Finish::Single, context)
    }

    fn local(&mut self, local: Local, bytes: usize, context: &Context<'_>) -> Action {
        if self.transaction.is_some() {
            return self.queue(Queued::Local(local), bytes, context);
        }
        Action::Answer(local::answer(&local, self, context))
    }

    fn queue(&mut self, queued: Queued, bytes: usize, context: &Context<'_>) -> Action {
        let Some(transaction) = &mut self.transaction else {
            return Action::error("ERR EXEC without MULTI");
        };
        transaction.bytes += bytes;
        let fits = transaction.queued.len() < context.limits.transaction_commands_max
            && transaction.bytes <= context.limits.request_bytes_max;
        if !fits {
            transaction.poisoned = true;
            transaction.queued.clear();
            return Action::error("ERR transaction too large");
        }
        if transaction.poisoned {
            // It will never run, so it need not be kept.
            return Action::Answer(Reply::simple("QUEUED"));
        }
        transaction.queued.push(queued);
        Action::Answer(Reply::simple("QUEUED"))
    }

    fn multi(&mut self) -> Action {
        if self.transaction.is_some() {
            return Action::error("ERR MULTI calls can not be nested");
        }
        let bytes = self.watched_bytes();
        self.transaction = Some(Transaction { bytes, ..Transaction::default() });
        Action::Answer(Reply::ok())
    }

    fn discard(&mut self) -> Action {
        if self.transaction.take().is_none() {
            return Action::error("ERR DISCARD without MULTI");
        }
        self.forget_watches();
        Action::Answer(Reply::ok())
    }

    fn exec(&mut self, context: &Context<'_>) -> Action {
        let Some(transaction) = self.transaction.take() else {
            return Action::error("ERR EXEC without MULTI");
        };
        let watch_refused = self.watch_refused;
        let watches = std::mem::take(&mut self.watches);
        self.forget_watches();
        if transaction.poisoned {
            return Action::error("EXECABORT Transaction discarded because of previous errors.");
        }
        if watch_refused {
            return Action::error("EXECABORT Transaction discarded because WATCH was refused.");
        }
        let mut program = Program { watches: watches.into(), ..Program::default() };
        let mut entries = Vec::with_capacity(transaction.queued.len());
        for queued in transaction.queued {
            match queued {
                Queued::Local(local) => entries.push(Some(local::answer(&local, self, context))),
                Queued::Hello(hello) => {
                    let changes = hello.protocol.is_some_and(|wanted| wanted != self.protocol);
                    entries.push(Some(match changes {
                        true => Reply::error(PROTOCOL_IN_MULTI),
                        false => self.hello(hello),
                    }));
                }
                Queued::Mistaken(text) => entries.push(Some(Reply::error(text.as_str()))),
                Queued::Data(op) => {
                    program.ops.push(op);
                    entries.push(None);
                }
            }
        }
        if program.ops.is_empty() && program.watches.is_empty() {
            return Action::Answer(Reply::array(entries.into_iter().flatten()));
        }
        execute(&program, Finish::Exec(entries), context)
    }

    fn watched_bytes(&self) -> usize {
        self.watches.iter().map(|watch| watch_bytes(&watch.key)).sum()
    }

    fn watch(&mut self, keys: Vec<Blob>, context: &Context<'_>) -> Action {
        if self.transaction.is_some() {
            return Action::error("ERR WATCH inside MULTI is not allowed");
        }
        let mut fresh: Vec<Blob> = Vec::new();
        for key in keys {
            // What is watched already keeps the version it had then.
            if !fresh.contains(&key) && !self.watches.iter().any(|watch| watch.key == key) {
                fresh.push(key);
            }
            if self.watches.len() + fresh.len() > context.limits.watched_keys_max {
                self.watch_refused = true;
                return Action::error("ERR too many watched keys");
            }
        }
        if fresh.is_empty() {
            return Action::Answer(Reply::ok());
        }
        let fresh_bytes: usize = fresh.iter().map(watch_bytes).sum();
        if self.watched_bytes() + fresh_bytes > context.limits.request_bytes_max {
            self.watch_refused = true;
            return Action::error("ERR the watched keys are too long together");
        }
        let program = Program::versions_of(fresh.clone());
        let action = execute(&program, Finish::Watch(fresh), context);
        self.watch_refused |= !matches!(action, Action::Execute(..));
        action
    }

    /// Takes in what a `WATCH` found.
    pub(super) fn watched(&mut self, watched: Watched) {
        match watched {
            Watched::Keys(watches) => self.watches.extend(watches),
            Watched::Refused => self.watch_refused = true,
        }
    }

    fn unwatch(&mut self, bytes: usize, context: &Context<'_>) -> Action {
        if self.transaction.is_some() {
            // As in Redis: queued, and without effect, because EXEC forgets
            // the watches anyway.
            return self.queue(Queued::Local(Local::Accepted), bytes, context);
        }
        self.forget_watches();
        Action::Answer(Reply::ok())
    }

    fn forget_watches(&mut self) {
        self.watches.clear();
        self.watch_refused = false;
    }

    fn hello(&mut self, hello: Hello) -> Reply {
        if hello.user.as_ref().is_some_and(|user| !local::is_known_user(user)) {
            return Reply::error(local::WRONG_PASSWORD);
        }
        if let Some(name) = hello.name {
            self.client.set_name(name);
        }
        if let Some(protocol) = hello.protocol {
            self.protocol = protocol;
        }
        local::hello(self)
    }
}

/// Has a program executed, unless it is clear already that it cannot be.
fn execute(program: &Program, finish: Finish, context: &Context<'_>) -> Action {
    if !context.backend.serving() {
        return Action::error(LOADING);
    }
    let call = program.call();
    if call.payload_bytes() > CALL_BYTES_MAX {
        let text = format!(
            "ERR the command with its keys is longer than {CALL_BYTES_MAX} bytes; split it"
        );
        return Action::error(&text);
    }
    Action::Execute(Work::Call(call), finish)
}

fn read_command(
    request: &Request,
    client: &Client,
    metrics: &Metrics,
) -> Result<Command, Unreadable> {
    let name = request.args.first().map(|name| &name[..]).unwrap_or_default();
    let Some((index, spec)) = lookup(name) else {
        return Err(Unreadable::Unknown(unknown_command(request)));
    };
    metrics.command(index);
    client.commanded(spec.name);
    spec.read(&request.args).map_err(|error| match error {
        ParseError::Arity(_) => Unreadable::Unknown(error.to_string()),
        _ => Unreadable::Mistaken(error.to_string()),
    })
}

/// What Redis says, with as much of the arguments as it shows.
fn unknown_command(request: &Request) -> String {
    const SHOWN_BYTES_MAX: usize = 128;
    let shown = |word: &[u8], room: usize| {
        String::from_utf8_lossy(word.get(..room).unwrap_or(word)).into_owned()
    };
    let mut words = request.args.iter();
    let name = words.next().map(|name| shown(name, SHOWN_BYTES_MAX)).unwrap_or_default();
    let mut arguments = String::new();
    for word in words {
        let Some(room) = SHOWN_BYTES_MAX.checked_sub(arguments.len()).filter(|room| *room > 0)
        else {
            break;
        };
        arguments.push_str(&format!("'{}' ", shown(word, room)));
    }
    format!("ERR unknown command '{name}', with args beginning with: {arguments}")
}
