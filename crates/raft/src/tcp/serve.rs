//! Inbound connections.

use std::io;
use std::sync::Arc;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use futures_util::poll;
use quorate_types::NodeId;
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, read_frame};
use quorate_types::hello::Hello;
use quorate_types::runtime::{BoxFuture, spawn};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::frames::{BODY_BYTES_MAX, Message};
use super::link::WRITE_BYTES;
use super::mesh::Mesh;

/// What answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers a request from `from` on `channel`; `Err` carries a refusal in
    /// the service's own words. Messages that need no answer come this way
    /// too, and the result is dropped.
    ///
    /// The futures of one connection are first polled in the order in which
    /// the requests arrived; from then on they run side by side.
    fn handle(&self, from: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>>;
}

/// A reply and the permit that its request held.
type Answered = (Message, OwnedSemaphorePermit);

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
        let requests_max = self.inner.config.inbound_requests_max.max(1);
        let (read, write) = tokio::io::split(stream);
        // Never full: a reply comes with a permit.
        let (replies, outgoing) = mpsc::channel(requests_max);
        let inbound = Inbound {
            from: hello.node,
            service,
            permits: Arc::new(Semaphore::new(requests_max)),
            replies,
        };
        tokio::select! {
            biased;
            result = inbound.read_requests(read) => result,
            result = write_replies(write, outgoing) => result,
        }
    }
}

struct Inbound {
    from: NodeId,
    service: Arc<dyn Service>,
    permits: Arc<Semaphore>,
    replies: mpsc::Sender<Answered>,
}

impl Inbound {
    async fn read_requests<S: AsyncRead>(&self, mut stream: ReadHalf<S>) -> io::Result<()> {
        let mut buffer = BytesMut::new();
        while let Some(frame) =
            read_frame(&mut stream, &mut buffer, FRAME_PAYLOAD_BYTES_MAX).await?
        {
            let (id, channel, body) = match Message::decode(frame) {
                Some(Message::Request { id, channel, body }) => (Some(id), channel, body),
                Some(Message::Oneway { channel, body }) => (None, channel, body),
                Some(Message::Reply { .. }) | None => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            };
            let permit = Arc::clone(&self.permits)
                .acquire_owned()
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::NotConnected))?;
            self.start(id, self.service.handle(self.from, channel, body), permit).await;
        }
        Ok(())
    }

    /// Polls the request once, here and now, so that requests begin in the
    /// order of arrival whatever thread continues them.
    async fn start(
        &self,
        id: Option<u64>,
        mut handling: BoxFuture<Result<Bytes, Bytes>>,
        permit: OwnedSemaphorePermit,
    ) {
        let replies = self.replies.clone();
        match poll!(&mut handling) {
            Poll::Ready(result) => reply(&replies, id, result, permit).await,
            Poll::Pending => drop(spawn(async move {
                reply(&replies, id, handling.await, permit).await;
            })),
        }
    }
}

async fn reply(
    replies: &mpsc::Sender<Answered>,
    id: Option<u64>,
    result: Result<Bytes, Bytes>,
    permit: OwnedSemaphorePermit,
) {
    let Some(id) = id else { return };
    let size = match &result {
        Ok(body) | Err(body) => body.len(),
    };
    let result = if size > BODY_BYTES_MAX {
        Err(Bytes::from_static(b"the reply exceeds a frame"))
    } else {
        result
    };
    // Without a connection there is nobody to tell.
    let _gone = replies.send((Message::Reply { id, result }, permit)).await;
}

async fn write_replies<S: AsyncWrite>(
    mut stream: WriteHalf<S>,
    mut replies: mpsc::Receiver<Answered>,
) -> io::Result<()> {
    let mut out = BytesMut::new();
    let mut permits = Vec::new();
    while let Some((message, permit)) = replies.recv().await {
        let mut next = Some((message, permit));
        while let Some((message, permit)) = next {
            let is_encoded = message.encode(&mut out);
            debug_assert!(is_encoded, "replies are cut to size before they are queued");
            permits.push(permit);
            next = if out.len() < WRITE_BYTES { replies.try_recv().ok() } else { None };
        }
        stream.write_all_buf(&mut out).await?;
        permits.clear();
    }
    Ok(())
}
