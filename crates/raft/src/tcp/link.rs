//! One outbound connection: queue, writer, reader, reconnection.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use quorate_types::NodeId;
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, FrameReader};
use quorate_types::hello::{Hello, Protocol, dial};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::frames::{Message, NOBODY, Outcome};
use super::mesh::{AddressBook, Introduction, MeshConfig, MeshError};
use super::turns::Turns;
use crate::transport::Lane;

/// How much the writer puts into one write. One write carries twenty times
/// the messages per second that one write per message does; more than this
/// only delays the first.
pub(super) const WRITE_BYTES: usize = 256 << 10;

/// How many times within the longest silence a connection is pinged over which
/// nothing else goes that is answered. A damaged length has the peer wait for the
/// rest of a frame that never was, and swallow what follows.
const PINGS_PER_SILENCE: u32 = 4;

/// Writes what waits, and keeps no memory for as much again if it was much.
pub(super) async fn write_all(
    stream: &mut (impl AsyncWrite + Unpin),
    out: &mut BytesMut,
) -> io::Result<()> {
    const KEPT_BYTES_MAX: usize = 16 << 10;
    let was_much = out.len() > KEPT_BYTES_MAX;
    stream.write_all_buf(out).await?;
    if was_much {
        *out = BytesMut::new();
    }
    Ok(())
}

/// Whether messages of a lane wait a moment for others that may share their write.
/// Heartbeats do not: they share messages already, and leases depend on them.
pub(super) const fn gathers(lane: u8) -> bool {
    lane == Lane::Data.number() || lane == Lane::Request.number()
}

/// Goes on when the tasks that are ready now have had their turn, on this thread or on
/// one that is free: those that send at the same time then share a write.
pub(super) async fn after_others() {
    let mut is_over = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut is_over, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

type ReplySender = oneshot::Sender<Result<Bytes, MeshError>>;
type ReplyReceiver = oneshot::Receiver<Result<Bytes, MeshError>>;

/// A message that waits for the connection.
pub(super) struct Outgoing {
    channel: u8,
    body: Bytes,
    caller: Option<Caller>,
}

/// Who waits for a reply, and until when.
struct Caller {
    reply: ReplySender,
    until: Instant,
}

impl Outgoing {
    pub(super) fn request(channel: u8, body: Bytes, until: Instant) -> (Self, ReplyReceiver) {
        let (reply, receiver) = oneshot::channel();
        (Self { channel, body, caller: Some(Caller { reply, until }) }, receiver)
    }

    pub(super) fn oneway(channel: u8, body: Bytes) -> Self {
        Self { channel, body, caller: None }
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// Whether the caller stopped waiting.
    fn is_abandoned(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.reply.is_closed())
    }

    fn fail(self, error: MeshError) {
        if let Some(caller) = self.caller {
            // The caller may have given up meanwhile.
            let _gone = caller.reply.send(Err(error));
        }
    }
}

/// A handle to one outbound connection; clones share it.
#[derive(Clone)]
pub(super) struct Link {
    to: NodeId,
    queue: mpsc::Sender<Outgoing>,
    shared: Arc<Shared>,
    turns: Arc<Turns>,
    task: AbortHandle,
}

struct Shared {
    queued_bytes: AtomicUsize,
    queued_bytes_max: usize,
    /// While set, the peer is left alone and callers hear why.
    down: Mutex<Option<Arc<str>>>,
}

impl Link {
    pub(super) fn open(
        to: NodeId,
        lane: u8,
        config: Arc<MeshConfig>,
        introduce: Introduction,
        book: Arc<dyn AddressBook>,
    ) -> Self {
        let (queue, messages) = mpsc::channel(config.queued_messages_max.max(1));
        let shared = Arc::new(Shared {
            queued_bytes: AtomicUsize::new(0),
            queued_bytes_max: config.queued_bytes_max,
            down: Mutex::new(None),
        });
        let turns = Arc::new(Turns::new(&config));
        let driver = Driver {
            to,
            lane,
            config,
            introduce,
            book,
            messages,
            shared: Arc::clone(&shared),
            next_id: 0,
        };
        let task = quorate_types::runtime::spawn(driver.run()).abort_handle();
        Self { to, queue, shared, turns, task }
    }

    pub(super) const fn to(&self) -> NodeId {
        self.to
    }

    /// The turns of requests on this connection.
    pub(super) fn turns(&self) -> Arc<Turns> {
        Arc::clone(&self.turns)
    }

    pub(super) fn enqueue(&self, outgoing: Outgoing) -> Result<(), MeshError> {
        if let Some(reason) = self.shared.down.lock().clone() {
            return Err(MeshError::Unreachable { to: self.to, reason });
        }
        let bytes = outgoing.body_bytes();
        let before = self.shared.queued_bytes.fetch_add(bytes, Ordering::AcqRel);
        let fits = before == 0 || before.saturating_add(bytes) <= self.shared.queued_bytes_max;
        let sent = fits.then(|| self.queue.try_send(outgoing));
        match sent {
            Some(Ok(())) => Ok(()),
            Some(Err(mpsc::error::TrySendError::Closed(_))) => Err(MeshError::Closed),
            None | Some(Err(mpsc::error::TrySendError::Full(_))) => {
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::AcqRel);
                Err(MeshError::Busy(self.to))
            }
        }
    }

    pub(super) fn close(&self) {
        self.task.abort();
    }
}

struct Driver {
    to: NodeId,
    lane: u8,
    config: Arc<MeshConfig>,
    introduce: Introduction,
    book: Arc<dyn AddressBook>,
    messages: mpsc::Receiver<Outgoing>,
    shared: Arc<Shared>,
    next_id: u64,
}

/// What was sent and is to be answered.
#[derive(Default)]
struct Pending {
    replies: Mutex<BTreeMap<u64, ReplySender>>,
    silence: Mutex<Silence>,
    /// Has the writer send a ping.
    ping: Notify,
    /// Whether the peer has ever sent what we understand.
    is_understood: AtomicBool,
}

/// How long nothing has come of what is to be answered.
#[derive(Default)]
struct Silence {
    /// Since then, if anything is: whether its caller still waits or not, the
    /// peer answers it.
    since: Option<Instant>,
    /// Requests and pings that are not answered yet.
    unanswered: u64,
    pinged: Option<Instant>,
}

impl Pending {
    /// Something is sent that the peer answers.
    fn asked(&self) {
        let mut silence = self.silence.lock();
        silence.unanswered += 1;
        silence.since.get_or_insert_with(Instant::now);
    }

    /// Something is sent that nobody answers: whether a ping has to go with it,
    /// so that it is noticed when nothing arrives over there.
    fn wants_ping(&self, pause: Duration) -> bool {
        let mut silence = self.silence.lock();
        let is_due = silence.unanswered == 0
            && silence.pinged.is_none_or(|pinged| pinged.elapsed() >= pause);
        if is_due {
            silence.pinged = Some(Instant::now());
        }
        is_due
    }

    fn answered(&self) {
        let mut silence = self.silence.lock();
        silence.unanswered = silence.unanswered.saturating_sub(1);
        silence.since = (silence.unanswered > 0).then(Instant::now);
    }

    /// The peer is there, and has answered nothing.
    fn heard(&self) {
        let mut silence = self.silence.lock();
        silence.since = silence.since.map(|_| Instant::now());
    }

    fn is_silent_for(&self, silence_max: Duration) -> bool {
        self.silence.lock().since.is_some_and(|since| since.elapsed() >= silence_max)
    }
}

impl Driver {
    async fn run(mut self) {
        let mut failures = 0;
        while let Some(first) = self.next_message().await {
            match self.connect().await {
                Ok(stream) => match self.converse(stream, first).await {
                    Ok(()) => failures = 0,
                    Err(error) => {
                        failures += 1;
                        self.rest(error, failures).await;
                    }
                },
                Err(error) => {
                    failures += 1;
                    first.fail(error.clone());
                    self.rest(error, failures).await;
                }
            }
        }
    }

    async fn next_message(&mut self) -> Option<Outgoing> {
        let outgoing = self.messages.recv().await?;
        self.shared.queued_bytes.fetch_sub(outgoing.body_bytes(), Ordering::AcqRel);
        Some(outgoing)
    }

    fn next_waiting(&mut self) -> Option<Outgoing> {
        let outgoing = self.messages.try_recv().ok()?;
        self.shared.queued_bytes.fetch_sub(outgoing.body_bytes(), Ordering::AcqRel);
        Some(outgoing)
    }

    async fn connect(&self) -> Result<TcpStream, MeshError> {
        let to = self.to;
        let address = self.book.address(to).ok_or(MeshError::NoAddress(to))?;
        let unreachable = |reason: String| MeshError::Unreachable { to, reason: reason.into() };
        let connecting = TcpStream::connect(address.as_str());
        let mut stream = tokio::time::timeout(self.config.connect_deadline, connecting)
            .await
            .map_err(|_| unreachable(format!("{address} does not answer")))?
            .map_err(|error| unreachable(format!("{address}: {error}")))?;
        stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
        let ours = Hello { protocol: Protocol::Mesh, lane: self.lane, ..(self.introduce)() };
        let theirs = dial(&mut stream, &ours, self.config.connect_deadline)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        if theirs.node != to {
            return Err(unreachable(format!("{address} belongs to {}", theirs.node)));
        }
        self.book.judge(&theirs).map_err(unreachable)?;
        Ok(stream)
    }

    /// Fails what waits, and for a while whatever comes.
    async fn rest(&mut self, error: MeshError, failures: u32) {
        *self.shared.down.lock() = Some(error.to_string().into());
        while let Some(waiting) = self.next_waiting() {
            waiting.fail(error.clone());
        }
        tokio::time::sleep(self.backoff(failures)).await;
        *self.shared.down.lock() = None;
    }

    /// Doubles with each failure; between half of it and all of it, so that
    /// nodes do not return in step.
    fn backoff(&self, failures: u32) -> Duration {
        const DOUBLINGS_MAX: u32 = 16;
        let doublings = failures.saturating_sub(1).min(DOUBLINGS_MAX);
        let full = self.config.backoff_min.saturating_mul(1 << doublings);
        let full = full.min(self.config.backoff_max);
        let share = quorate_types::runtime::random() % 512;
        full / 2 + full.mul_f64(f64::from(u32::try_from(share).unwrap_or(0)) / 1024.0)
    }

    /// Uses a connection until it breaks or nobody needs it any more. An error
    /// means that it was of no use: it ended soon and without a word that we
    /// understand, as it does where another version of the frames is spoken,
    /// and the next one would be no better.
    async fn converse(&mut self, stream: TcpStream, first: Outgoing) -> Result<(), MeshError> {
        let (to, began) = (self.to, Instant::now());
        let (read, write) = stream.into_split();
        let pending = Arc::new(Pending::default());
        let reading = read_replies(read, to, Arc::clone(&pending), self.config.silence_max);
        let error = {
            let writing = self.write_messages(write, first, &pending);
            tokio::select! {
                biased;
                error = reading => error,
                error = writing => error,
            }
        };
        tracing::debug!(%to, lane = self.lane, %error, "disconnected");
        for reply in std::mem::take(&mut *pending.replies.lock()).into_values() {
            let _gone = reply.send(Err(MeshError::Disconnected(to)));
        }
        if pending.is_understood.load(Ordering::Acquire)
            || began.elapsed() >= self.config.backoff_max
        {
            return Ok(());
        }
        let reason = format!("it broke the connection off before it replied: {error}");
        Err(MeshError::Unreachable { to, reason: reason.into() })
    }

    async fn write_messages(
        &mut self,
        mut stream: impl AsyncWrite + Unpin,
        first: Outgoing,
        pending: &Pending,
    ) -> io::Error {
        let mut out = BytesMut::new();
        self.put(first, pending, &mut out);
        loop {
            while out.len() < WRITE_BYTES {
                let Some(message) = self.next_waiting() else { break };
                self.put(message, pending, &mut out);
            }
            if let Err(error) = write_all(&mut stream, &mut out).await {
                return error;
            }
            tokio::select! {
                biased;
                message = self.next_message() => {
                    let Some(message) = message else { return io::ErrorKind::NotConnected.into() };
                    self.put(message, pending, &mut out);
                    if gathers(self.lane) {
                        after_others().await;
                    }
                }
                () = pending.ping.notified() => self.ping(pending, &mut out),
            }
        }
    }

    fn ping(&mut self, pending: &Pending, out: &mut BytesMut) {
        self.next_id += 1;
        pending.asked();
        let is_encoded = Message::Ping { id: self.next_id }.encode(out);
        debug_assert!(is_encoded, "a ping is small");
    }

    fn put(&mut self, outgoing: Outgoing, pending: &Pending, out: &mut BytesMut) {
        if outgoing.is_abandoned() {
            return;
        }
        let Outgoing { channel, body, caller } = outgoing;
        let message = match caller {
            None => {
                if pending.wants_ping(self.config.silence_max / PINGS_PER_SILENCE) {
                    self.ping(pending, out);
                }
                Message::Oneway { channel, body }
            }
            Some(Caller { reply, until }) => {
                self.next_id += 1;
                pending.asked();
                pending.replies.lock().insert(self.next_id, reply);
                let left_millis = millis_until(until);
                Message::Request { id: self.next_id, left_millis, channel, body }
            }
        };
        let is_encoded = message.encode(out);
        debug_assert!(is_encoded, "the size was checked before the message was queued");
    }
}

/// Hands replies to their callers until the connection breaks or, while some are
/// due, falls silent.
async fn read_replies(
    stream: impl AsyncRead + Unpin,
    from: NodeId,
    pending: Arc<Pending>,
    silence_max: Duration,
) -> io::Error {
    let mut frames = FrameReader::new(stream, FRAME_PAYLOAD_BYTES_MAX);
    loop {
        let frame = match tokio::time::timeout(silence_max / 2, frames.next()).await {
            Ok(Ok(Some(frame))) => frame,
            Ok(Ok(None)) => return io::ErrorKind::ConnectionReset.into(),
            Ok(Err(error)) => return error,
            Err(_) if pending.is_silent_for(silence_max) => return io::ErrorKind::TimedOut.into(),
            Err(_) => {
                pending.replies.lock().retain(|_, reply| !reply.is_closed());
                // What is asked for may take long. That is none of the connection's
                // doing, and a ping is answered at once.
                if pending.is_silent_for(Duration::ZERO) {
                    pending.ping.notify_one();
                }
                continue;
            }
        };
        let Some(Message::Reply { id, outcome }) = Message::decode(frame) else {
            return io::ErrorKind::InvalidData.into();
        };
        pending.is_understood.store(true, Ordering::Release);
        if id == NOBODY {
            pending.heard();
            continue;
        }
        pending.answered();
        // A caller that gave up has taken its entry's receiver along.
        if let Some(reply) = pending.replies.lock().remove(&id) {
            let _gone = reply.send(match outcome {
                Outcome::Reply(body) => Ok(body),
                Outcome::Refusal(reason) => Err(MeshError::Refused { to: from, reason }),
                Outcome::NotBegun => Err(MeshError::Overloaded(from)),
                Outcome::Ended => Err(MeshError::Deadline(from)),
            });
        }
    }
}

/// What is left of a caller's time, in whole milliseconds, rounded up: a peer
/// that stopped before its caller does would have worked for nothing.
fn millis_until(until: Instant) -> u32 {
    let left = until.saturating_duration_since(Instant::now());
    u32::try_from(left.as_millis()).unwrap_or(u32::MAX).saturating_add(1)
}
