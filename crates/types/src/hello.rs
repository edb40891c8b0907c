//! The first frame on every connection between nodes. The node's one listener
//! reads it, judges it, and hands the connection to the protocol it names.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::codec::{decode, encode};
use crate::env::{Clock, SystemClock};
use crate::frame::{Frame, read_frame_exactly, write_frame};
use crate::hlc::{DRIFT_MILLIS_MAX, HlcClock};
use crate::{Blob, ClusterId, DiskId, NodeId};

/// Frame kind of an [`Introduction`].
pub const HELLO_KIND: u8 = 0xF0;
/// Frame kind of a [`HelloReply`].
pub const HELLO_REPLY_KIND: u8 = 0xF1;
/// The revision of both.
pub const HELLO_VERSION: u8 = 1;
/// The largest payload accepted before a peer has introduced itself.
pub const HELLO_BYTES_MAX: u32 = 4 << 10;
/// How much of a refusal's text is sent, so that it always fits a reply.
const REASON_BYTES_MAX: usize = 1 << 10;

/// Which driver takes the connection over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, PartialOrd, Ord, ToMessagePack, FromMessagePack)]
#[msgpack(c_enum)]
#[repr(u8)]
pub enum Protocol {
    /// Requests and replies between nodes: Raft messages and what the
    /// composing node multiplexes beside them.
    Mesh = 1,
    /// Membership and anti-entropy.
    Gossip = 2,
}

/// Who calls, and for what.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Hello {
    /// The protocol that follows.
    pub protocol: Protocol,
    /// A number within the protocol that tells its connections apart (a lane).
    pub lane: u8,
    /// The caller's cluster; `None` while it has not joined or bootstrapped.
    pub cluster: Option<ClusterId>,
    /// The caller.
    pub node: NodeId,
    /// The caller's disk.
    pub disk: DiskId,
    /// Distinguishes the lives of a process on the same disk.
    pub incarnation: u64,
    /// The address at which the caller listens, as text.
    pub address: Blob,
}

/// What is sent: who calls, and the caller's time of day at that moment. The
/// time is no part of [`Hello`], which its owner may keep for long.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub struct Introduction {
    /// Who calls.
    pub hello: Hello,
    /// Milliseconds since the Unix epoch on the sender's clock.
    pub wall_millis: u64,
}

/// The answer to an [`Introduction`]. Until it has arrived the caller sends
/// nothing.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum HelloReply {
    /// Go ahead; this is who answers.
    Welcome(Introduction),
    /// No; the text tells the operator what to do.
    Refused(Blob),
    /// Not now: the caller's clock is this many milliseconds ahead.
    Ahead(u64),
}

/// Why two nodes did not come together.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The connection broke or stayed silent, or it must not be used yet
    /// because one clock is ahead ([`ClockAhead`] within). Try again later.
    #[error("connection failed during the handshake: {0}")]
    Io(#[from] io::Error),
    /// What arrived is not a handshake of this protocol.
    #[error("not a quorate handshake: {0}")]
    Malformed(String),
    /// The other side refuses this node; the text tells the operator why.
    #[error("refused by the peer: {0}")]
    Refused(String),
}

/// The clocks of two nodes are so far apart that the timestamps of one would
/// win over the other's for no better reason. A wrong clock is mended while
/// nodes run, so this ends the connection and not the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the clock of {node} is {}.{:03} s ahead of its peer's, {DRIFT_MILLIS_MAX} ms are allowed; \
     fix the clock that is wrong",
    millis / 1_000,
    millis % 1_000
)]
pub struct ClockAhead {
    /// Whose clock is ahead.
    pub node: NodeId,
    /// By how much.
    pub millis: u64,
}

impl From<ClockAhead> for HelloError {
    fn from(ahead: ClockAhead) -> Self {
        Self::Io(io::Error::new(io::ErrorKind::InvalidData, ahead))
    }
}

/// How a node shakes hands.
#[derive(Clone, Copy)]
pub struct Handshake<'a> {
    /// The clock by which the node draws its timestamps.
    pub clock: &'a dyn Clock,
    /// How long both directions may take together.
    pub deadline: Duration,
}

/// [`Handshake::dial`] by the machine's clock.
///
/// # Errors
/// As [`Handshake::dial`].
pub async fn dial<S>(stream: &mut S, ours: &Hello, deadline: Duration) -> Result<Hello, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Handshake { clock: &SystemClock::new(), deadline }.dial(stream, ours).await
}

/// [`Handshake::answer`] by the machine's clock.
///
/// # Errors
/// As [`Handshake::answer`].
pub async fn answer<S>(
    stream: &mut S,
    deadline: Duration,
    judge: impl FnOnce(&Hello) -> Result<Hello, String>,
) -> Result<Hello, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    Handshake { clock: &SystemClock::new(), deadline }.answer(stream, judge).await
}

impl Handshake<'_> {
    /// Introduces `ours` on a fresh connection and waits for the verdict.
    ///
    /// # Errors
    /// [`HelloError`]; the connection is then useless.
    pub async fn dial<S>(&self, stream: &mut S, ours: &Hello) -> Result<Hello, HelloError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        bounded(self.deadline, async {
            send(stream, HELLO_KIND, &self.introduce(ours)).await?;
            match receive(stream, HELLO_REPLY_KIND).await? {
                HelloReply::Welcome(theirs) => {
                    self.admit(&theirs).map_err(reported)?;
                    Ok(theirs.hello)
                }
                HelloReply::Refused(reason) => {
                    Err(HelloError::Refused(String::from_utf8_lossy(&reason).into_owned()))
                }
                HelloReply::Ahead(millis) => Err(reported(ClockAhead { node: ours.node, millis })),
            }
        })
        .await
    }

    /// Reads a caller's introduction, lets `judge` answer it with our own or
    /// with a refusal, and sends the verdict.
    ///
    /// # Errors
    /// [`HelloError`]; a refusal is an error here too, after it was sent.
    pub async fn answer<S>(
        &self,
        stream: &mut S,
        judge: impl FnOnce(&Hello) -> Result<Hello, String>,
    ) -> Result<Hello, HelloError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        bounded(self.deadline, async {
            let theirs: Introduction = receive(stream, HELLO_KIND).await?;
            // Who never belongs here learns that rather than what time it is.
            let (reply, verdict) = match judge(&theirs.hello) {
                Err(reason) => {
                    let sent = reason.as_bytes().get(..REASON_BYTES_MAX);
                    let sent = Blob::from(sent.unwrap_or(reason.as_bytes()));
                    (HelloReply::Refused(sent), Err(HelloError::Refused(reason)))
                }
                Ok(ours) => match self.admit(&theirs) {
                    Err(ahead) => (HelloReply::Ahead(ahead.millis), Err(reported(ahead))),
                    Ok(()) => (HelloReply::Welcome(self.introduce(&ours)), Ok(theirs.hello)),
                },
            };
            send(stream, HELLO_REPLY_KIND, &reply).await?;
            verdict
        })
        .await
    }

    fn introduce(&self, ours: &Hello) -> Introduction {
        Introduction { hello: ours.clone(), wall_millis: self.clock.wall_millis() }
    }

    /// Refuses a peer whose clock is ahead. On the way the introduction only
    /// aged, so that a slow network refuses nobody.
    fn admit(&self, theirs: &Introduction) -> Result<(), ClockAhead> {
        let now_millis = self.clock.wall_millis();
        if HlcClock::admissible(theirs.wall_millis, now_millis) {
            return Ok(());
        }
        let millis = theirs.wall_millis.saturating_sub(now_millis);
        Err(ClockAhead { node: theirs.hello.node, millis })
    }
}

/// Leaves word for the operator: the caller's caller only sees a connection
/// that does not come about.
fn reported(ahead: ClockAhead) -> HelloError {
    tracing::warn!(%ahead, "a handshake failed");
    ahead.into()
}

async fn send<S, T>(stream: &mut S, kind: u8, message: &T) -> Result<(), HelloError>
where
    S: AsyncWrite + Unpin,
    T: ToMessagePack,
{
    let frame = Frame { kind, version: HELLO_VERSION, payload: encode(message) };
    Ok(write_frame(stream, &frame).await?)
}

async fn bounded<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, HelloError>>,
) -> Result<T, HelloError> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()))
}

/// Reads one handshake frame and not a byte more: what follows belongs to the
/// protocol that takes the connection over.
async fn receive<S, T>(stream: &mut S, kind: u8) -> Result<T, HelloError>
where
    S: AsyncRead + Unpin,
    T: for<'a> FromMessagePack<'a>,
{
    let frame = read_frame_exactly(stream, HELLO_BYTES_MAX).await?;
    if frame.kind != kind {
        return Err(HelloError::Malformed(format!("frame kind {:#04x}", frame.kind)));
    }
    if frame.version != HELLO_VERSION {
        let (found, known) = (frame.version, HELLO_VERSION);
        return Err(HelloError::Malformed(format!("format {found}, this build knows {known}")));
    }
    decode(&frame.payload).map_err(|error| HelloError::Malformed(error.to_string()))
}
