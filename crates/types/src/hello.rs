//! The first frame on every connection between nodes. The node's one listener
//! reads it, judges it, and hands the connection to the protocol it names.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use zerompk::{FromMessagePack, ToMessagePack};

use crate::codec::{decode, encode};
use crate::frame::{Frame, read_frame_exactly, write_frame};
use crate::{Blob, ClusterId, DiskId, NodeId};

/// Frame kind of a [`Hello`].
pub const HELLO_KIND: u8 = 0xF0;
/// Frame kind of a [`HelloReply`].
pub const HELLO_REPLY_KIND: u8 = 0xF1;
/// The largest payload accepted before a peer has introduced itself.
pub const HELLO_BYTES_MAX: u32 = 4 << 10;

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

/// The answer to a [`Hello`]. Until it has arrived the caller sends nothing.
#[derive(Clone, PartialEq, Eq, Debug, ToMessagePack, FromMessagePack)]
pub enum HelloReply {
    /// Go ahead; this is who answers.
    Welcome(Hello),
    /// No; the text tells the operator what to do.
    Refused(Blob),
}

/// Why two nodes did not come together.
#[derive(Debug, thiserror::Error)]
pub enum HelloError {
    /// The connection broke or stayed silent.
    #[error("connection failed during the handshake: {0}")]
    Io(#[from] std::io::Error),
    /// What arrived is not a handshake of this protocol.
    #[error("not a quorate handshake: {0}")]
    Malformed(String),
    /// The other side refuses this node; the text tells the operator why.
    #[error("refused by the peer: {0}")]
    Refused(String),
}

/// Introduces `ours` on a fresh connection and waits for the verdict.
///
/// # Errors
/// [`HelloError`]; the connection is then useless.
pub async fn dial<S>(stream: &mut S, ours: &Hello, deadline: Duration) -> Result<Hello, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    bounded(deadline, async {
        write_frame(stream, &Frame::new(HELLO_KIND, encode(ours))).await?;
        match receive(stream, HELLO_REPLY_KIND).await? {
            HelloReply::Welcome(theirs) => Ok(theirs),
            HelloReply::Refused(reason) => {
                Err(HelloError::Refused(String::from_utf8_lossy(&reason).into_owned()))
            }
        }
    })
    .await
}

/// Reads a caller's introduction, lets `judge` answer it with our own or with
/// a refusal, and sends the verdict.
///
/// # Errors
/// [`HelloError`]; a refusal is an error here too, after it was sent.
pub async fn answer<S>(
    stream: &mut S,
    deadline: Duration,
    judge: impl FnOnce(&Hello) -> Result<Hello, String>,
) -> Result<Hello, HelloError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    bounded(deadline, async {
        let theirs: Hello = receive(stream, HELLO_KIND).await?;
        let verdict = judge(&theirs);
        let reply = match &verdict {
            Ok(ours) => HelloReply::Welcome(ours.clone()),
            Err(reason) => HelloReply::Refused(Blob::from(reason.as_str())),
        };
        write_frame(stream, &Frame::new(HELLO_REPLY_KIND, encode(&reply))).await?;
        verdict.map(|_| theirs).map_err(HelloError::Refused)
    })
    .await
}

async fn bounded<T>(
    deadline: Duration,
    work: impl Future<Output = Result<T, HelloError>>,
) -> Result<T, HelloError> {
    tokio::time::timeout(deadline, work)
        .await
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
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
    decode(&frame.payload).map_err(|error| HelloError::Malformed(error.to_string()))
}
