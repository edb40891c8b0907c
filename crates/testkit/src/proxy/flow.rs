//! One direction of one connection.

use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use quorate_types::env::{Rng, SplitMix};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::classes::{Ledger, View};
use super::{Behaviour, Flow};

/// What is read at once.
const CHUNK_BYTES: usize = 16 << 10;

/// Chunks that wait in one direction of one connection: bytes in flight on a
/// slow link. Beyond, the sender is not read from and feels it.
const CHUNKS_WAITING_MAX: usize = 64;

/// Into so many pieces a second's worth of bytes is cut where they pass slowly.
const PIECES_PER_SECOND: u32 = 20;

/// Which of a connection's directions.
#[derive(Clone, Copy)]
pub(super) enum Way {
    ToServer,
    ToClient,
}

impl Way {
    fn flow(self, behaviour: &Behaviour) -> Flow {
        match self {
            Self::ToServer => behaviour.to_server,
            Self::ToClient => behaviour.to_client,
        }
    }
}

/// Bytes on their way.
struct Chunk {
    bytes: Vec<u8>,
    due: Instant,
    is_delayed: bool,
}

pub(super) struct Direction {
    way: Way,
    view: View,
    ledger: Arc<Ledger>,
    /// Tells this direction's chance from that of any other.
    salt: u64,
    /// Bytes of this direction so far, those that vanished included.
    position: u64,
    lost_bytes: bool,
}

impl Direction {
    pub(super) fn new(way: Way, connection: u64, view: View, ledger: Arc<Ledger>) -> Self {
        let salt = connection.wrapping_mul(2).wrapping_add(way as u64);
        Self { way, view, ledger, salt, position: 0, lost_bytes: false }
    }

    /// Forwards `begun` and all that follows, to the end of the stream.
    ///
    /// # Errors
    /// Those of the streams, or a reset where bytes are missing.
    pub(super) async fn pump(
        self,
        begun: Vec<u8>,
        from: ReadHalf<'_>,
        to: WriteHalf<'_>,
    ) -> io::Result<()> {
        let (chunks, waiting) = mpsc::channel(CHUNKS_WAITING_MAX);
        let reading = read(begun, from, chunks, self.view.clone(), self.salt);
        tokio::try_join!(reading, self.write(to, waiting)).map(drop)
    }

    async fn write(
        mut self,
        mut to: WriteHalf<'_>,
        mut waiting: mpsc::Receiver<Chunk>,
    ) -> io::Result<()> {
        while let Some(chunk) = waiting.recv().await {
            sleep_until(chunk.due).await;
            self.forward(&mut to, chunk).await?;
        }
        // The end of the stream passes as bytes do.
        let way = self.way;
        self.view.wait_for(|behaviour| way.flow(behaviour) == Flow::Pass).await?;
        if self.lost_bytes { self.give_up() } else { to.shutdown().await }
    }

    /// Forwards one chunk, as fast as it may pass; what is in force is looked
    /// at anew for each piece.
    async fn forward(&mut self, to: &mut WriteHalf<'_>, mut chunk: Chunk) -> io::Result<()> {
        let mut rest = chunk.bytes.as_mut_slice();
        let mut is_late = chunk.is_delayed;
        let way = self.way;
        while !rest.is_empty() {
            let is_open = |behaviour: &Behaviour| way.flow(behaviour) != Flow::Stall;
            let (behaviour, waited) = self.view.wait_for(is_open).await?;
            is_late |= waited;
            if way.flow(&behaviour) == Flow::Drop {
                self.lost_bytes = true;
                self.position += rest.len() as u64;
                self.ledger.count(|tally| tally.dropped_bytes += rest.len() as u64);
                return Ok(());
            }
            if self.lost_bytes {
                return self.give_up();
            }
            let (length, pause) = pace(&behaviour, rest.len());
            let (piece, further) = rest.split_at_mut(length);
            self.damage(&behaviour, piece);
            to.write_all(piece).await?;
            self.position += piece.len() as u64;
            is_late |= !pause.is_zero();
            self.ledger.count(|tally| {
                tally.passed_bytes += piece.len() as u64;
                tally.late_bytes += if is_late { piece.len() as u64 } else { 0 };
            });
            rest = further;
            if !pause.is_zero() {
                self.view.pause(pause).await?;
            }
        }
        Ok(())
    }

    /// Bytes may pass again, but those before them are missing.
    fn give_up(&self) -> io::Result<()> {
        self.ledger.count(|tally| tally.closed += 1);
        Err(io::ErrorKind::ConnectionReset.into())
    }

    fn damage(&self, behaviour: &Behaviour, piece: &mut [u8]) {
        if let Some(every) = behaviour.flip_every_bytes {
            let seed = mix(behaviour.seed, self.salt);
            self.ledger.flipped(flip(piece, self.position, every, seed));
        }
    }
}

async fn read(
    begun: Vec<u8>,
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<Chunk>,
    view: View,
    salt: u64,
) -> io::Result<()> {
    let mut bytes = begun;
    for number in 0_u64.. {
        if !bytes.is_empty() {
            let delay = delay(&view.behaviour(), salt, number);
            let due = Instant::now() + delay;
            if chunks.send(Chunk { bytes, due, is_delayed: !delay.is_zero() }).await.is_err() {
                break;
            }
        }
        bytes = vec![0; CHUNK_BYTES];
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            break;
        }
        bytes.truncate(read);
    }
    Ok(())
}

/// How long a chunk takes.
fn delay(behaviour: &Behaviour, salt: u64, number: u64) -> Duration {
    let jitter = u64::try_from(behaviour.jitter.as_micros()).unwrap_or(u64::MAX);
    let drawn = mix(mix(behaviour.seed, salt), number).checked_rem(jitter).unwrap_or(0);
    behaviour.delay + Duration::from_micros(drawn)
}

/// How many of the next `left` bytes pass at once, and how long the others wait
/// then.
fn pace(behaviour: &Behaviour, left: usize) -> (usize, Duration) {
    let mut length = left;
    if let Some(rate) = behaviour.bytes_per_second {
        let piece = (rate.get() / PIECES_PER_SECOND).max(1);
        length = length.min(usize::try_from(piece).unwrap_or(usize::MAX));
    }
    if behaviour.trickle.is_some() {
        length = length.min(1);
    }
    let paced = behaviour.bytes_per_second.map(|rate| {
        let bytes = u32::try_from(length).unwrap_or(u32::MAX);
        Duration::from_secs(1).mul_f64(f64::from(bytes) / f64::from(rate.get()))
    });
    (length, behaviour.trickle.unwrap_or_default() + paced.unwrap_or_default())
}

/// Flips the bits of a piece that begins at `position` of its stream: one in
/// each stretch of `every` bytes, wherever the pieces are cut. Returns how many
/// lay in this piece.
fn flip(piece: &mut [u8], position: u64, every: NonZeroU64, seed: u64) -> u64 {
    let every = every.get();
    let end = position + piece.len() as u64;
    let mut flipped = 0;
    for stretch in position / every..end.div_ceil(every) {
        let mut chance = SplitMix::new(mix(seed, stretch));
        let at = stretch * every + chance.below(every);
        let bit = chance.below(8);
        let inside = at.checked_sub(position).and_then(|at| usize::try_from(at).ok());
        if let Some(byte) = inside.and_then(|at| piece.get_mut(at)) {
            *byte ^= 1 << bit;
            flipped += 1;
        }
    }
    flipped
}

fn mix(seed: u64, salt: u64) -> u64 {
    SplitMix::new(seed ^ SplitMix::new(salt).next_u64()).next_u64()
}

#[cfg(test)]
mod tests;
