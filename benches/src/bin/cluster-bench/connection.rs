//! A client's connection: commands go out in one piece, replies are read by
//! the library that the gateway reads requests with.
//!
//! The clients of the end-to-end tests block a thread each. Hundreds of those
//! would take the processor from the nodes they measure.

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A reply.
pub(crate) type Frame = OwnedFrame;

/// A connection with nothing outstanding.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(gateway: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(gateway).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: BytesMut::new() })
    }

    /// Sends commands and reads one reply for each. The last is returned;
    /// of an error, the first.
    pub(crate) async fn exchange(&mut self, wire: &[u8], replies: usize) -> io::Result<Frame> {
        self.stream.write_all(wire).await?;
        let mut answer = Frame::Null;
        for _ in 0..replies {
            let reply = self.read().await?;
            if !matches!(answer, Frame::Error(_)) {
                answer = reply;
            }
        }
        Ok(answer)
    }

    async fn read(&mut self) -> io::Result<Frame> {
        loop {
            let decoded = decode(&self.buffer)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            if let Some((frame, bytes)) = decoded {
                self.buffer.advance(bytes);
                return Ok(frame);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Appends a command to what is to be sent.
pub(crate) fn encode(wire: &mut Vec<u8>, words: &[&str]) {
    wire.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        wire.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
}
