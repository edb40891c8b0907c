//! What arrives on a connection.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;
use quorate_types::frame::{FRAME_PAYLOAD_BYTES_MAX, Frame};
use quorate_types::hello::{Hello, Protocol};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, DiskId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frames::{Message, Outcome};
use super::mesh::{AddressBook, Mesh, MeshConfig};
use super::serve::Service;
use crate::transport::Lane;

fn messages() -> Vec<Message> {
    let body = Bytes::from_static(b"body");
    vec![
        Message::Request { id: 7, left_millis: 900, channel: 2, body: body.clone() },
        Message::Oneway { channel: 3, body: body.clone() },
        Message::Reply { id: 7, outcome: Outcome::Reply(body.clone()) },
        Message::Reply { id: 8, outcome: Outcome::Refusal(body) },
        Message::Reply { id: 9, outcome: Outcome::NotBegun },
        Message::Reply { id: 10, outcome: Outcome::Ended },
        Message::Ping { id: 11 },
    ]
}

fn bytes_of(message: &Message) -> BytesMut {
    let mut bytes = BytesMut::new();
    assert!(message.encode(&mut bytes));
    bytes
}

/// The first byte is the frame's kind, the second its version.
#[test]
fn any_frame_is_a_message_or_none() {
    let corpus = messages().into_iter().map(|message| bytes_of(&message)).map(|mut bytes| {
        let frame = Frame::decode(&mut bytes, FRAME_PAYLOAD_BYTES_MAX).unwrap().unwrap();
        [&[frame.kind, frame.version][..], &frame.payload].concat()
    });
    fuzz!(Corpus::of(corpus.collect::<Vec<_>>()), |input| {
        let (&[kind, version], payload) = input.split_first_chunk().unwrap_or((&[1, 3], &[]));
        let frame = Frame { kind, version, payload: Bytes::copy_from_slice(payload) };
        let Some(message) = Message::decode(frame.clone()) else { return };
        let mut bytes = bytes_of(&message);
        let again = Frame::decode(&mut bytes, FRAME_PAYLOAD_BYTES_MAX).unwrap().unwrap();
        assert_eq!(Message::decode(again), Some(message));
    });
}

struct NoAddresses;

impl AddressBook for NoAddresses {
    fn address(&self, _: NodeId) -> Option<String> {
        None
    }
}

struct Echo;

impl Service for Echo {
    fn handle(&self, _: NodeId, channel: u8, payload: Bytes) -> BoxFuture<Result<Bytes, Bytes>> {
        let answer = if channel == 9 { Err(payload) } else { Ok(payload) };
        Box::pin(async move { answer })
    }
}

fn hello(lane: Lane) -> Hello {
    Hello {
        protocol: Protocol::Mesh,
        lane: lane.number(),
        cluster: None,
        node: NodeId(2),
        disk: DiskId(2),
        incarnation: 1,
        address: Blob::new(),
    }
}

/// A connection whose peer sends anything ends, without harm to the rest.
#[test]
fn any_stream_is_served_to_its_end() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let streams = messages().iter().map(|message| bytes_of(message).repeat(3)).collect::<Vec<_>>();
    let mesh = Mesh::new(MeshConfig::default(), || hello(Lane::Request), NoAddresses);
    fuzz!(Corpus::of(streams), |input| {
        for lane in [Lane::Request, Lane::Data] {
            runtime.block_on(async {
                let (ours, mut theirs) = tokio::io::duplex(1 << 20);
                theirs.write_all(input).await.unwrap();
                theirs.shutdown().await.unwrap();
                let served = mesh.serve(ours, hello(lane), Arc::new(Echo)).await;
                let mut replies = BytesMut::new();
                theirs.read_buf(&mut replies).await.unwrap();
                while let Ok(Some(frame)) = Frame::decode(&mut replies, FRAME_PAYLOAD_BYTES_MAX) {
                    assert!(matches!(Message::decode(frame), Some(Message::Reply { .. })));
                }
                drop(served);
            });
        }
    });
}
