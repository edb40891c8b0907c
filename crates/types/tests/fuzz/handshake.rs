//! The first frame of a connection, in both directions.

use std::time::Duration;

use bytes::Bytes;
use quorate_testkit::fuzz::{self, Corpus};
use quorate_types::codec::encode;
use quorate_types::env::Clock;
use quorate_types::frame::Frame;
use quorate_types::hello::{
    HELLO_KIND, HELLO_REPLY_KIND, HELLO_VERSION, Handshake, Hello, HelloError, HelloReply,
    Introduction, Protocol,
};
use quorate_types::hlc::DRIFT_MILLIS_MAX;
use quorate_types::{Blob, ClusterId, DiskId, NodeId};
use tokio::io::join;
use tokio::runtime::{Builder, Runtime};

const NOON_MILLIS: u64 = 1_700_000_000_000;

/// A clock that stands still.
struct Noon;

impl Clock for Noon {
    fn wall_millis(&self) -> u64 {
        NOON_MILLIS
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

const HANDSHAKE: Handshake<'_> = Handshake { clock: &Noon, deadline: Duration::from_secs(1) };

fn hello(node: u64, cluster: Option<ClusterId>) -> Hello {
    Hello {
        protocol: if node == 1 { Protocol::Mesh } else { Protocol::Gossip },
        lane: 1,
        cluster,
        node: NodeId(node),
        disk: DiskId(u128::MAX / 3),
        incarnation: 1 << 40,
        address: Blob::from("host:7100"),
    }
}

fn introduction(node: u64) -> Introduction {
    let cluster = (node == 1).then_some(ClusterId(7));
    Introduction { hello: hello(node, cluster), wall_millis: NOON_MILLIS + node }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

/// The payload as a frame of the handshake, or the bytes as they are.
fn on_the_wire(kind: u8, input: &[u8]) -> [Bytes; 2] {
    let payload = Bytes::copy_from_slice(input);
    let framed = Frame { kind, version: HELLO_VERSION, payload }.to_bytes().unwrap();
    [framed, Bytes::copy_from_slice(input)]
}

#[test]
fn an_introduction_is_read_or_refused() {
    let runtime = runtime();
    let payloads = [encode(&introduction(1)), encode(&introduction(2))];
    let framed = payloads.clone().map(|payload| on_the_wire(HELLO_KIND, &payload)[0].clone());
    quorate_testkit::fuzz!(Corpus::of(payloads.iter().chain(&framed)), |input| {
        let sent = fuzz::value::<Introduction>(fuzz::BYTES_PER_BYTE, input);
        for wire in on_the_wire(HELLO_KIND, input) {
            let mut answer = Vec::new();
            let found = runtime.block_on(async {
                let mut stream = join(&wire[..], &mut answer);
                HANDSHAKE.answer(&mut stream, |_| Ok(hello(1, None))).await
            });
            match found {
                Ok(hello) => {
                    assert!(!answer.is_empty(), "who is welcome hears so");
                    if wire.len() != input.len() {
                        let sent = sent.as_ref().unwrap();
                        assert_eq!(hello, sent.hello);
                        assert!(sent.wall_millis <= NOON_MILLIS + DRIFT_MILLIS_MAX);
                    }
                }
                Err(HelloError::Malformed(_) | HelloError::Io(_)) => {}
                Err(HelloError::Refused(reason)) => panic!("nobody refused: {reason}"),
            }
        }
    });
}

#[test]
fn a_reply_is_read_or_refused() {
    let runtime = runtime();
    let replies = [
        HelloReply::Welcome(introduction(2)),
        HelloReply::Refused("this disk is not the one that joined".into()),
        HelloReply::Ahead(70_000),
    ];
    quorate_testkit::fuzz!(Corpus::of(replies.iter().map(encode)), |input| {
        let reply = fuzz::value::<HelloReply>(fuzz::BYTES_PER_BYTE, input);
        for wire in on_the_wire(HELLO_REPLY_KIND, input) {
            let found = runtime.block_on(async {
                let mut stream = join(&wire[..], tokio::io::sink());
                HANDSHAKE.dial(&mut stream, &hello(1, None)).await
            });
            let is_framed = wire.len() != input.len();
            match (found, &reply) {
                (Ok(found), Some(HelloReply::Welcome(theirs))) if is_framed => {
                    assert_eq!(found, theirs.hello);
                }
                (Err(HelloError::Refused(_)), Some(HelloReply::Refused(_))) if is_framed => {}
                (Err(HelloError::Io(_) | HelloError::Malformed(_)), _) => {}
                // A reply that was mutated into the frame of one.
                (_, _) if !is_framed => {}
                (found, reply) => panic!("{reply:?} was taken for {found:?}"),
            }
        }
    });
}
