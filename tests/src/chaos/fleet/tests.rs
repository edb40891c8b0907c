use quorate_types::codec::encode;
use quorate_types::hello::{HELLO_VERSION, Hello, Protocol};
use quorate_types::{Blob, DiskId, NodeId};

use super::*;

#[test]
fn a_caller_is_known_by_its_whole_introduction_and_not_before() {
    let hello = Hello {
        protocol: Protocol::Gossip,
        lane: 2,
        cluster: None,
        node: NodeId(7),
        disk: DiskId(5),
        incarnation: 3,
        address: Blob::from("127.0.0.1:7101"),
    };
    let payload = encode(&Introduction { hello, wall_millis: 12 });
    let frame = |kind| Frame { kind, version: HELLO_VERSION, payload: payload.clone() };
    let bytes = frame(HELLO_KIND).to_bytes().unwrap();
    assert!((0..bytes.len()).all(|length| caller(&bytes[..length]).is_none()));
    assert_eq!(caller(&bytes), Some(7));
    assert_eq!(caller(&[&bytes, &b"and what follows"[..]].concat()), Some(7));
    assert_eq!(caller(&frame(0x01).to_bytes().unwrap()), None);
    assert_eq!(caller(b"GET / HTTP/1.1\r\n\r\n"), None);
}
