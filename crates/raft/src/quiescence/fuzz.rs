//! What a node says about groups that rest, from anybody.
#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;
use quorate_types::{Blob, GroupId, ReplicaId, Seq};

use super::wire::{Beat, Claim, Claims, Lull};
use crate::heartbeats::Together;
use crate::log::{LogPosition, Vote};
use crate::nodes::NodeCall;

#[test]
fn any_bytes_are_a_call_of_a_node_or_none() {
    let claim = |group, term| Claim { group: GroupId(group), term };
    let mut claims = Claims::default();
    claims.add(claim(1, 2));
    claims.add(claim(3, 4));
    let vote = Vote { term: 4, candidate: ReplicaId(12), committed: true };
    let last = LogPosition { term: 4, index: 900 };
    let lull = Lull { group: GroupId(3), to: ReplicaId(11), vote, last };
    let calls = [
        NodeCall::Beat(Beat { claims: Claims::default(), names: None }),
        NodeCall::Beat(Beat { claims, names: Some(Seq(vec![claim(1, 2), claim(3, 4)])) }),
        NodeCall::Lull(Seq(vec![lull, Lull { group: GroupId(5), ..lull }])),
        NodeCall::Lull(Seq::new()),
        NodeCall::Heartbeats(Together {
            within_millis: 90,
            messages: Seq(vec![Blob(Bytes::from_static(b"one")), Blob(Bytes::new())]),
        }),
    ];
    let corpus: Vec<Bytes> = calls.iter().map(NodeCall::to_bytes).collect();
    fuzz!(Corpus::of(corpus), |input| {
        // A lull is eight bytes on the wire at least and sixty-four in memory.
        let read = fuzz::frugal_by(32, input.len(), || NodeCall::from_bytes(input));
        if let Ok(call) = read {
            assert_eq!(NodeCall::from_bytes(&call.to_bytes()).unwrap(), call);
        }
    });
}

#[test]
fn claims_are_a_set() {
    let claim = |group, term| Claim { group: GroupId(group), term };
    let mut claims = Claims::default();
    for group in 1..=64 {
        claims.add(claim(group, 7));
    }
    let whole = claims;
    claims.remove(claim(9, 7));
    assert_ne!(claims, whole);
    claims.add(claim(9, 8));
    assert_ne!(claims, whole, "another term is another claim");
    claims.remove(claim(9, 8));
    claims.add(claim(9, 7));
    assert_eq!(claims, whole);
}
