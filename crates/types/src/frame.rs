//! The frame on every wire: `[len u32][kind u8][version u8][crc32c u32][payload]`,
//! integers big endian. `len` counts the payload; the checksum covers length,
//! kind, version and payload, so that a flipped bit anywhere is found.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before the payload.
pub const FRAME_HEADER_BYTES: usize = 10;

/// The largest payload unless a decoder is given a tighter limit.
pub const FRAME_PAYLOAD_BYTES_MAX: u32 = 8 << 20;

/// The most that is reserved for a payload of which nothing has arrived; what
/// arrives grows the buffer. Ten bytes would otherwise reserve a payload's
/// limit on every connection.
const FRAME_RESERVED_BYTES_MAX: usize = 64 << 10;

/// The least that a [`FrameReader`] reads into.
const ROOM_BYTES_MIN: usize = 512;

/// One message: what it is, by which revision of its format, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The meaning of the payload; each protocol numbers its own.
    pub kind: u8,
    /// The revision of the payload's format.
    pub version: u8,
    /// The payload.
    pub payload: Bytes,
}

/// Why bytes are not a frame. After any of these the stream cannot be
/// resynchronized and the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The announced payload exceeds the decoder's limit; nothing was allocated.
    #[error("frame announces {len} bytes, the limit is {limit}")]
    TooLarge {
        /// The announced length.
        len: u32,
        /// The limit in force.
        limit: u32,
    },
    /// The checksum does not match.
    #[error("frame checksum mismatch")]
    Checksum,
}

impl Frame {
    /// A frame of version 1.
    #[must_use]
    pub const fn new(kind: u8, payload: Bytes) -> Self {
        Self { kind, version: 1, payload }
    }

    /// Appends the frame to `out`.
    ///
    /// # Errors
    /// [`FrameError::TooLarge`] when the payload exceeds
    /// [`FRAME_PAYLOAD_BYTES_MAX`]; `out` is unchanged.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), FrameError> {
        Self::encode_parts(self.kind, self.version, &[&self.payload], out)
    }

    /// Appends a frame to `out` whose payload is these parts, one behind the other:
    /// what a protocol puts in front of a body needs no memory that holds both.
    ///
    /// # Errors
    /// As [`Frame::encode`].
    pub fn encode_parts(
        kind: u8,
        version: u8,
        parts: &[&[u8]],
        out: &mut BytesMut,
    ) -> Result<(), FrameError> {
        let limit = FRAME_PAYLOAD_BYTES_MAX;
        let payload_bytes: usize = parts.iter().map(|part| part.len()).sum();
        let len = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        if len > limit {
            return Err(FrameError::TooLarge { len, limit });
        }
        out.reserve(FRAME_HEADER_BYTES + payload_bytes);
        out.put_u32(len);
        out.put_u8(kind);
        out.put_u8(version);
        out.put_u32(checksum(len, kind, version, parts));
        parts.iter().for_each(|part| out.put_slice(part));
        Ok(())
    }

    /// The frame as bytes of its own.
    ///
    /// # Errors
    /// As [`Frame::encode`].
    pub fn to_bytes(&self) -> Result<Bytes, FrameError> {
        let mut out = BytesMut::new();
        self.encode(&mut out)?;
        Ok(out.freeze())
    }

    /// Takes the first frame off `input`; `None` when it has not arrived whole.
    /// The length is judged before anything is reserved for it, and then little
    /// is.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is then beyond repair.
    pub fn decode(
        input: &mut BytesMut,
        payload_bytes_max: u32,
    ) -> Result<Option<Self>, FrameError> {
        let Some((&header, rest)) = input.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, kind, version, c0, c1, c2, c3] = header;
        let len = u32::from_be_bytes([l0, l1, l2, l3]);
        if len > payload_bytes_max {
            return Err(FrameError::TooLarge { len, limit: payload_bytes_max });
        }
        let payload_bytes = len as usize;
        let Some(payload) = rest.get(..payload_bytes) else {
            let missing = payload_bytes - rest.len();
            input.reserve(missing.min(FRAME_RESERVED_BYTES_MAX));
            return Ok(None);
        };
        if checksum(len, kind, version, &[payload]) != u32::from_be_bytes([c0, c1, c2, c3]) {
            return Err(FrameError::Checksum);
        }
        input.advance(FRAME_HEADER_BYTES);
        let payload = input.split_to(payload_bytes).freeze();
        Ok(Some(Self { kind, version, payload }))
    }
}

fn checksum(len: u32, kind: u8, version: u8, payload: &[&[u8]]) -> u32 {
    let [l0, l1, l2, l3] = len.to_be_bytes();
    let crc = crc32c::crc32c(&[l0, l1, l2, l3, kind, version]);
    payload.iter().fold(crc, |crc, part| crc32c::crc32c_append(crc, part))
}

/// Writes one frame and flushes it.
///
/// # Errors
/// The stream's, or `InvalidInput` when the frame is too large.
pub async fn write_frame<S: AsyncWrite + Unpin>(stream: &mut S, frame: &Frame) -> io::Result<()> {
    let bytes =
        frame.to_bytes().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    stream.write_all(&bytes).await?;
    stream.flush().await
}

/// Reads the next frame through `buffer`, which keeps what was read beyond it.
/// `None` at a clean end of the stream. Safe to drop and call again.
///
/// # Errors
/// The stream's, `UnexpectedEof` within a frame, or `InvalidData` with the
/// [`FrameError`].
pub async fn read_frame<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    payload_bytes_max: u32,
) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = decode(buffer, payload_bytes_max)? {
            return Ok(Some(frame));
        }
        if stream.read_buf(buffer).await? == 0 {
            return end(buffer);
        }
    }
}

/// Reads one frame after the other, many at a time where many arrive.
///
/// It reads into as much room as the peer has lately filled, and has none while it
/// waits for a frame to begin: a connection that is not used takes no memory here.
/// A payload keeps all that was read with it: who keeps one for long had better copy
/// what is small.
#[derive(Debug)]
pub struct FrameReader<S> {
    stream: S,
    buffer: BytesMut,
    room: usize,
    payload_bytes_max: u32,
}

impl<S: AsyncRead + Unpin> FrameReader<S> {
    /// Reads frames from `stream` whose payloads do not exceed a limit.
    pub fn new(stream: S, payload_bytes_max: u32) -> Self {
        Self { stream, buffer: BytesMut::new(), room: ROOM_BYTES_MIN, payload_bytes_max }
    }

    /// The next frame; `None` at a clean end of the stream. Safe to drop and call
    /// again.
    ///
    /// # Errors
    /// As [`read_frame`].
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = decode(&mut self.buffer, self.payload_bytes_max)? {
                return Ok(Some(frame));
            }
            let read = poll_fn(|cx| self.poll_read(cx)).await?;
            if read == 0 {
                return end(&self.buffer);
            }
            self.room = match read {
                read if read >= self.room => (self.room * 2).min(FRAME_RESERVED_BYTES_MAX),
                read if read < self.room / 4 => (self.room / 2).max(ROOM_BYTES_MIN),
                _ => self.room,
            };
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.reserve(self.room);
        let mut room = (&mut self.buffer).limit(self.room);
        let read = pin!(self.stream.read_buf(&mut room)).poll(cx);
        if read.is_pending() && self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        read
    }
}

fn decode(buffer: &mut BytesMut, payload_bytes_max: u32) -> io::Result<Option<Frame>> {
    Frame::decode(buffer, payload_bytes_max)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// What the end of a stream means behind these bytes.
fn end(buffer: &BytesMut) -> io::Result<Option<Frame>> {
    if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Reads one frame and not a byte beyond it.
///
/// # Errors
/// As [`read_frame`]; the end of the stream is `UnexpectedEof`.
pub async fn read_frame_exactly<S: AsyncRead + Unpin>(
    stream: &mut S,
    payload_bytes_max: u32,
) -> io::Result<Frame> {
    let mut bytes = BytesMut::zeroed(FRAME_HEADER_BYTES);
    stream.read_exact(&mut bytes).await?;
    let len = bytes.first_chunk().map_or(0, |len| u32::from_be_bytes(*len));
    let mut payload = stream.take(u64::from(len));
    read_frame(&mut payload, &mut bytes, payload_bytes_max)
        .await?
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
