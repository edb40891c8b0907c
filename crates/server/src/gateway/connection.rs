//! One connection, one task: reads requests, keeps them going, writes answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quorate_types::watch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::limits::GatewayLimits;
use super::pipeline::{Finish, Pipeline};
use super::roster::{Roster, Seat};
use super::session::{Action, Context, Session};
use crate::backend::Backend;
use crate::metrics::Metrics;
use crate::resp::{Reply, RequestDecoder};

/// Room made for each read: many small commands, or a piece of a large one.
const READ_BYTES: usize = 16 << 10;

/// How long and how much a closing connection still reads and throws away.
/// Closing while input is unread resets the connection, and the client might
/// lose the error that explains the end.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES_MAX: usize = 1 << 20;

/// What all connections of a gateway share.
pub(super) struct Shared {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) limits: GatewayLimits,
    pub(super) metrics: Metrics,
    pub(super) roster: Arc<Roster>,
}

pub(super) struct Connection {
    shared: Arc<Shared>,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    decoder: RequestDecoder,
    seat: Seat,
    session: Session,
    pipeline: Pipeline,
    input: BytesMut,
    output: BytesMut,
    /// No request is taken any more: the client or the node ends, or the input
    /// cannot be followed.
    ended: bool,
    /// A `WATCH` is under way; what follows depends on what it finds.
    watching: bool,
}

impl Connection {
    pub(super) fn new(shared: Arc<Shared>, stream: TcpStream, id: u64) -> Self {
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        let local = stream.local_addr().map(|local| local.to_string()).unwrap_or_default();
        let seat = shared.roster.enter(id, peer, local);
        let (reader, writer) = stream.into_split();
        let backend = Arc::clone(&shared.backend);
        Self {
            decoder: RequestDecoder::new(shared.limits.request()),
            session: Session::new(Arc::clone(&seat.client)),
            seat,
            pipeline: Pipeline::new(backend, shared.limits, shared.metrics.clone()),
            input: BytesMut::new(),
            output: BytesMut::new(),
            ended: false,
            watching: false,
            shared,
            reader,
            writer,
        }
    }

    /// Serves the connection to its end. When `stop` becomes true, what was
    /// taken in is still answered. Who is killed is not answered any more.
    pub(super) async fn serve(mut self, mut stop: watch::Receiver<bool>) -> io::Result<()> {
        self.ended = *stop.borrow_and_update();
        loop {
            self.take_requests();
            self.pipeline.start(self.output.len());
            self.pipeline.answer(&mut self.output);
            if self.output.is_empty() && self.is_done() {
                return self.close().await;
            }
            let readable = !self.ended && !self.watching && self.has_room();
            if readable {
                self.input.reserve(READ_BYTES);
            }
            tokio::select! {
                biased;
                watched = self.pipeline.finished(), if self.pipeline.is_running() => {
                    if let Some(watched) = watched {
                        self.session.watched(watched);
                        self.watching = false;
                    }
                }
                written = self.writer.write_buf(&mut self.output), if !self.output.is_empty() => {
                    written?;
                }
                read = self.reader.read_buf(&mut self.input), if readable => {
                    if read? == 0 {
                        // Perhaps only its half of the connection is closed.
                        self.ended = true;
                        self.pipeline.cut_scans();
                    }
                    self.seat.client.heard();
                }
                changed = stop.changed(), if !self.ended => {
                    if changed.is_err() || *stop.borrow() {
                        self.ended = true;
                        self.pipeline.cut_scans();
                    }
                }
                _ = self.seat.killed.changed() => return Ok(()),
            }
        }
    }

    fn is_done(&self) -> bool {
        self.pipeline.is_broken() || (self.ended && self.pipeline.is_empty())
    }

    fn has_room(&self) -> bool {
        self.pipeline.has_room(self.output.len())
    }

    /// Takes requests off the input while there is room for them.
    fn take_requests(&mut self) {
        while !self.ended && !self.watching && self.has_room() {
            match self.decoder.decode(&mut self.input) {
                Ok(None) => return,
                Ok(Some(request)) => {
                    let protocol_before = self.session.protocol;
                    let context = Context {
                        backend: &*self.shared.backend,
                        limits: &self.shared.limits,
                        metrics: &self.shared.metrics,
                        roster: &self.shared.roster,
                    };
                    let action = self.session.handle(&request, &context);
                    debug_assert!(
                        protocol_before == self.session.protocol
                            || !matches!(action, Action::Execute(..)),
                        "only HELLO and RESET change the protocol"
                    );
                    self.act(action, request.wire_bytes);
                    self.ended |= self.session.is_over;
                }
                Err(error) => {
                    self.shared.metrics.protocol_error();
                    let reply = Reply::error(format!("ERR {error}").as_str());
                    self.act(Action::End(reply), 0);
                }
            }
        }
    }

    fn act(&mut self, action: Action, request_bytes: usize) {
        let protocol = self.session.protocol;
        match action {
            Action::Answer(reply) => self.pipeline.push_reply(reply, protocol),
            Action::End(reply) => {
                self.pipeline.push_reply(reply, protocol);
                self.ended = true;
            }
            Action::Execute(work, finish) => {
                self.watching = matches!(finish, Finish::Watch(_));
                self.pipeline.push_work(work, finish, protocol, request_bytes);
            }
        }
    }

    async fn close(mut self) -> io::Result<()> {
        self.writer.shutdown().await?;
        let mut discarded = 0;
        let discard = async {
            while discarded < LINGER_BYTES_MAX {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                match self.reader.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return,
                    Ok(length) => discarded += length,
                }
            }
        };
        // Running out of time is as good as the client's end.
        let _ = tokio::time::timeout(LINGER, discard).await;
        Ok(())
    }
}
