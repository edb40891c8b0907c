//! A gateway and a client that says bytes and expects bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quorate_server::{Gateway, GatewayLimits, Metrics};
use quorate_types::{runtime, watch};
use redis_protocol::resp2::types::OwnedFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::memory::MemoryBackend;

/// Ends a test that would otherwise wait for ever.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) backend: Arc<MemoryBackend>,
    pub(crate) metrics: Metrics,
    pub(crate) address: SocketAddr,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with_limits(GatewayLimits::default()).await
    }

    pub(crate) async fn with_limits(limits: GatewayLimits) -> Self {
        let backend = MemoryBackend::new();
        let metrics = Metrics::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let gateway = Gateway::new(Arc::clone(&backend) as _, limits, metrics.clone());
        let task = runtime::spawn(gateway.serve(listener, stopped));
        Self { backend, metrics, address, stop, task }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await
    }
}

pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

pub(crate) fn encode<A: AsRef<[u8]>>(words: &[A]) -> Vec<u8> {
    let mut wire = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        wire.extend_from_slice(format!("${}\r\n", word.as_ref().len()).as_bytes());
        wire.extend_from_slice(word.as_ref());
        wire.extend_from_slice(b"\r\n");
    }
    wire
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), input: Vec::new() }
    }

    pub(crate) async fn send(&mut self, wire: impl AsRef<[u8]>) {
        self.stream.write_all(wire.as_ref()).await.unwrap();
    }

    /// Sends a command given as words between single spaces.
    pub(crate) async fn say(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        self.send(encode(&words)).await;
    }

    async fn read_some(&mut self) -> usize {
        let read = self.stream.read_buf(&mut self.input);
        tokio::time::timeout(PATIENCE, read).await.expect("an answer in time").unwrap_or(0)
    }

    /// The next reply, whole.
    pub(crate) async fn reply(&mut self) -> OwnedFrame {
        loop {
            if let Some((frame, length)) =
                redis_protocol::resp2::decode::decode(&self.input).unwrap()
            {
                self.input.drain(..length);
                return frame;
            }
            let length = self.read_some().await;
            assert_ne!(length, 0, "the connection ended: {}", self.input.escape_ascii());
        }
    }

    /// Says a command and takes its reply.
    pub(crate) async fn ask(&mut self, line: &str) -> OwnedFrame {
        self.say(line).await;
        self.reply().await
    }

    /// Expects exactly these bytes to come next.
    pub(crate) async fn expect(&mut self, expected: &str) {
        while self.input.len() < expected.len() {
            if self.read_some().await == 0 {
                break;
            }
        }
        let length = self.input.len().min(expected.len());
        let found: Vec<u8> = self.input.drain(..length).collect();
        assert_eq!(
            found.escape_ascii().to_string(),
            expected.as_bytes().escape_ascii().to_string()
        );
    }

    /// Says a command and expects exactly these bytes.
    pub(crate) async fn check(&mut self, line: &str, expected: &str) {
        self.say(line).await;
        self.expect(expected).await;
    }

    /// Takes one line and says whether it is something else.
    pub(crate) async fn reply_line_is_not(&mut self, expected: &str) -> bool {
        loop {
            if let Some(end) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).collect();
                return line[..end] != *expected.as_bytes();
            }
            assert_ne!(self.read_some().await, 0, "the connection ended");
        }
    }

    /// Everything up to the end of the connection.
    pub(crate) async fn rest(&mut self) -> String {
        while self.read_some().await != 0 {}
        std::mem::take(&mut self.input).escape_ascii().to_string()
    }
}

/// Runs a conversation: a command and the exact bytes of its reply, in turn.
pub(crate) async fn converse(client: &mut Client, lines: &[(&str, &str)]) {
    for (line, expected) in lines {
        client.say(line).await;
        client.expect(expected).await;
    }
}

/// The strings of an array, without order.
pub(crate) fn names(frame: OwnedFrame) -> std::collections::BTreeSet<String> {
    let OwnedFrame::Array(keys) = frame else { panic!("not an array: {frame:?}") };
    keys.into_iter()
        .map(|key| match key {
            OwnedFrame::BulkString(key) => String::from_utf8(key).unwrap(),
            other => panic!("not a key: {other:?}"),
        })
        .collect()
}
