//! What a connection remembers between commands: its protocol, its
//! transaction, what it watches.

use quorate_types::Blob;

use super::limits::GatewayLimits;
use super::local;
use super::pipeline::{Finish, Watched, Work};
use crate::backend::Backend;
use crate::commands::{Command, Hello, Local, Op, ParseError, Program, Watch, lookup};
use crate::metrics::Metrics;
use crate::resp::{Protocol, Reply, Request};

/// What everything on a node's gateway shares.
pub(super) struct Context<'a> {
    pub(super) backend: &'a dyn Backend,
    pub(super) limits: &'a GatewayLimits,
    pub(super) metrics: &'a Metrics,
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
#[derive(Default)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) peer: String,
    pub(super) protocol: Protocol,
    pub(super) name: Blob,
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
    /// Options that make no sense: as in Redis, `EXEC` says so in its place.
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

const LOADING: &str = "LOADING this node does not serve yet, retry";

impl Session {
    pub(super) fn new(id: u64, peer: String) -> Self {
        Self { id, peer, ..Self::default() }
    }

    /// Decides about a request.
    pub(super) fn handle(&mut self, request: &Request, context: &Context<'_>) -> Action {
        let command = match read_command(request, context.metrics) {
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
            Command::Scan(_) | Command::Hello(_) if self.transaction.is_some() => {
                self.poison();
                Action::error("ERR Command not allowed inside a transaction")
            }
            Command::Scan(_) if !context.backend.serving() => Action::error(LOADING),
            Command::Scan(request) => Action::Execute(Work::Scan(request), Finish::Single),
            Command::Hello(hello) => self.hello(hello, context),
            Command::Reset => {
                let (id, peer) = (self.id, std::mem::take(&mut self.peer));
                *self = Self::new(id, peer);
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
            return self.queue(Queued::Data(op), bytes, context);
        }
        if !context.backend.serving() {
            return Action::error(LOADING);
        }
        Action::Execute(Work::Program(Program::single(op)), Finish::Single)
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
        self.transaction = Some(Transaction::default());
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
        if !context.backend.serving() {
            return Action::error(LOADING);
        }
        Action::Execute(Work::Program(program), Finish::Exec(entries))
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
        if !context.backend.serving() {
            self.watch_refused = true;
            return Action::error(LOADING);
        }
        let program = Program::versions_of(fresh.clone());
        Action::Execute(Work::Program(program), Finish::Watch(fresh))
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

    fn hello(&mut self, hello: Hello, context: &Context<'_>) -> Action {
        if hello.user.as_ref().is_some_and(|user| !local::is_known_user(user)) {
            return Action::error(local::WRONG_PASSWORD);
        }
        if let Some(name) = hello.name {
            self.name = name;
        }
        if let Some(protocol) = hello.protocol {
            self.protocol = protocol;
        }
        Action::Answer(local::hello(self, context))
    }
}

fn read_command(request: &Request, metrics: &Metrics) -> Result<Command, Unreadable> {
    let name = request.args.first().map(|name| &name[..]).unwrap_or_default();
    let Some((index, spec)) = lookup(name) else {
        return Err(Unreadable::Unknown(unknown_command(request)));
    };
    metrics.command(index);
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
