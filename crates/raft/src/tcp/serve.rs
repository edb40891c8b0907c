//! Inbound connections.

use std::collections::BTreeMap;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::poll;
use quorate_types::NodeId;
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, FrameReader};
use quorate_types::hello::Hello;
use quorate_types::runtime::{BoxFuture, spawn};
use tokio::io::{AsyncRead, AsyncWrite, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::task::coop::{consume_budget, unconstrained};
use tokio::time::Instant;

use super::frames::{BODY_BYTES_MAX, Message, NOBODY, Outcome};
use super::link::{WRITE_BYTES, after_others, gathers, write_all};
use super::load::{Held, Load};
use super::mesh::Mesh;
use crate::deadlines::Deadlines;
use crate::transport::Lane;

/// How often a lane that is not read says that somebody is there.
const SIGNS_PER_SILENCE: u32 = 4;
/// Up to this size a body is copied out of what a connection read.
const COPIED_BYTES_MAX: usize = 4 << 10;

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers a request from `from` on `channel`; `Err` carries a refusal in
    /// the service's own words. Messages that need no answer come this way
    /// too, and the result is dropped.
    ///
    /// The futures of one connection are first polled in the order in which
    /// the requests arrived; from then on they run side by side. A request on
    /// [`Lane::Request`] is dropped, at whatever it waits for, when its caller
    /// has stopped waiting: what must not end half way belongs into a task of
    /// its own.
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>>;
}

/// A reply and the room that its request took, if it was begun.
type Answered = (Message, Option<Held>);

/// How a lane treats requests.
#[derive(Clone, Copy)]
enum Regime {
    /// While as many as allowed are in work nothing more is read. The callers
    /// keep few under way, and what they ask for ends without anybody's help.
    Pauses,
    /// Those beyond the limit are refused, so that reading never stops for
    /// what is in work. None is worked on for longer than its caller waits,
    /// and none for longer than this.
    Refuses { work_max: Duration },
}

impl Mesh {
    /// Serves an inbound connection, whose [`Hello`] was read and welcomed
    /// already, until it ends.
    ///
    /// # Errors
    /// The stream's, or `InvalidData` when the peer does not speak our
    /// protocol.
    pub async fn serve<S>(
        &self,
        stream: S,
        hello: Hello,
        service: Arc<dyn Service>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let config = &self.inner.config;
        let requests_max = config.inbound_requests_max.max(1);
        let (read, write) = tokio::io::split(stream);
        // Full only while the peer does not read its replies: then its
        // requests may wait too.
        let (replies, outgoing) = mpsc::channel(requests_max);
        let inbound = Inbound {
            from: hello.node,
            service,
            regime: if hello.lane == Lane::Request.number() {
                Regime::Refuses { work_max: config.inbound_work_max }
            } else {
                Regime::Pauses
            },
            requests_max,
            bytes_max: config.inbound_bytes_max,
            silence_max: config.silence_max,
            messages: Load::new(config.inbound_messages_max, config.inbound_bytes_max),
            deadlines: self.inner.deadlines(),
            replies,
        };
        tokio::select! {
            biased;
            result = write_replies(write, outgoing, gathers(hello.lane)) => result,
            result = inbound.read_messages(read) => result,
        }
    }
}

struct Inbound {
    from: NodeId,
    service: Arc<dyn Service>,
    regime: Regime,
    /// The limit of each channel, so that clients' requests leave room for
    /// those that keep the cluster in order.
    requests_max: usize,
    bytes_max: usize,
    silence_max: Duration,
    messages: Load,
    deadlines: Arc<Deadlines>,
    replies: mpsc::Sender<Answered>,
}

impl Inbound {
    async fn read_messages<S: AsyncRead>(&self, stream: ReadHalf<S>) -> io::Result<()> {
        let mut frames = FrameReader::new(stream, FRAME_PAYLOAD_BYTES_MAX);
        let mut channels: BTreeMap<u8, Load> = BTreeMap::new();
        while let Some(frame) = frames.next().await? {
            // Many frames may have come at once: now and then others have their turn.
            consume_budget().await;
            match Message::decode(frame) {
                Some(Message::Oneway { channel, body }) => self.take(channel, body).await,
                Some(Message::Request { id, left_millis, channel, body }) => {
                    let room = channels
                        .entry(channel)
                        .or_insert_with(|| Load::new(self.requests_max, self.bytes_max));
                    match self.admit(room, body.len()).await {
                        Some(held) => {
                            let body = self.body(body);
                            let handling = self.service.handle(self.from, channel, body);
                            self.begin(id, left_millis, handling, held).await;
                        }
                        None => reply(&self.replies, id, Outcome::NotBegun, None).await,
                    }
                }
                Some(Message::Ping { id }) => {
                    reply(&self.replies, id, Outcome::Reply(Bytes::new()), None).await;
                }
                Some(Message::Reply { .. }) | None => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            }
        }
        Ok(())
    }

    /// What the service gets of a request. One that may wait for long must not keep all
    /// that was read with it.
    fn body(&self, body: Bytes) -> Bytes {
        match self.regime {
            Regime::Refuses { .. } if body.len() <= COPIED_BYTES_MAX => {
                Bytes::copy_from_slice(&body)
            }
            _ => body,
        }
    }

    /// Room for a request; `None` when it has to be refused.
    async fn admit(&self, room: &Load, bytes: usize) -> Option<Held> {
        match self.regime {
            Regime::Pauses => match room.try_take(bytes) {
                Some(held) => Some(held),
                None => self.pause(room, bytes).await,
            },
            Regime::Refuses { .. } => room.try_take(bytes),
        }
    }

    /// Waits for room, and says now and then that we are there: pings are not read
    /// meanwhile, and whoever took us for dead would send everything once more.
    async fn pause(&self, room: &Load, bytes: usize) -> Option<Held> {
        let mut taking = pin!(room.take(bytes));
        loop {
            tokio::select! {
                biased;
                held = &mut taking => return held,
                () = tokio::time::sleep(self.silence_max / SIGNS_PER_SILENCE) => {
                    reply(&self.replies, NOBODY, Outcome::Reply(Bytes::new()), None).await;
                }
            }
        }
    }

    /// Polls the request once, here and now, so that requests begin in the
    /// order of arrival whatever thread continues them.
    async fn begin(
        &self,
        id: u64,
        left_millis: u32,
        mut handling: BoxFuture<Result<Bytes, Bytes>>,
        held: Held,
    ) {
        // It must not be put off for what those before it have done.
        if let Poll::Ready(result) = poll!(unconstrained(&mut handling)) {
            return reply(&self.replies, id, outcome_of(result), Some(held)).await;
        }
        let (replies, deadlines) = (self.replies.clone(), Arc::clone(&self.deadlines));
        let until = match self.regime {
            Regime::Pauses => None,
            Regime::Refuses { work_max } => {
                Some(Instant::now() + Duration::from_millis(left_millis.into()).min(work_max))
            }
        };
        drop(spawn(async move {
            let result = match until {
                None => Some(handling.await),
                Some(until) => deadlines.bound(until, handling).await,
            };
            reply(&replies, id, result.map_or(Outcome::Ended, outcome_of), Some(held)).await;
        }));
    }

    /// Takes in a message that nobody waits for. It needs none of the room that
    /// requests take.
    async fn take(&self, channel: u8, body: Bytes) {
        let Some(held) = self.messages.try_take(body.len()) else {
            tracing::debug!(from = %self.from, channel, "too many messages: one is dropped");
            return;
        };
        let mut handling = self.service.handle(self.from, channel, body);
        // In order, too, whatever those before it have done.
        if poll!(unconstrained(&mut handling)).is_pending() {
            drop(spawn(async move {
                drop(handling.await);
                drop(held);
            }));
        }
    }
}

fn outcome_of(result: Result<Bytes, Bytes>) -> Outcome {
    match result {
        Ok(body) => Outcome::Reply(body),
        Err(reason) => Outcome::Refusal(reason),
    }
}

async fn reply(replies: &mpsc::Sender<Answered>, id: u64, outcome: Outcome, held: Option<Held>) {
    let outcome = if outcome.body().len() > BODY_BYTES_MAX {
        Outcome::Refusal(Bytes::from_static(b"the reply exceeds a frame"))
    } else {
        outcome
    };
    // Without a connection there is nobody to tell.
    let _gone = replies.send((Message::Reply { id, outcome }, held)).await;
}

async fn write_replies<S: AsyncWrite>(
    mut stream: WriteHalf<S>,
    mut replies: mpsc::Receiver<Answered>,
    gathers: bool,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    let mut answered = Vec::new();
    while let Some((message, held)) = replies.recv().await {
        if gathers {
            after_others().await;
        }
        let mut next = Some((message, held));
        while let Some((message, held)) = next {
            let is_encoded = message.encode(&mut out);
            debug_assert!(is_encoded, "replies are cut to size before they are queued");
            answered.push(held);
            next = if out.len() < WRITE_BYTES { replies.try_recv().ok() } else { None };
        }
        write_all(&mut stream, &mut out).await?;
        answered.clear();
    }
    Ok(())
}
