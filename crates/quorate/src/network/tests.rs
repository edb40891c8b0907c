//! What the services conclude from how a call over the network ended.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;

const PEER: NodeId = NodeId(2);

#[test]
fn a_peer_with_too_much_to_do_has_refused_and_still_leads() {
    let reply = answered(Err(TransportError::Busy { to: PEER })).unwrap();
    // What a service answers before admission: not executed, and no reason to
    // look for another leader.
    let Ok(Reply::Busy(reason)) = Reply::from_bytes(&reply) else { panic!("{reply:?}") };
    assert_eq!(reason.as_ref(), b"n2 has too much to do");
}

#[test]
fn only_what_was_not_sent_is_known_not_to_have_happened() {
    let reason = String::new();
    let unsent = TransportError::Unreachable { to: PEER, reason: reason.clone() };
    assert_eq!(answered(Err(unsent)), Err(CallError::Unreachable));
    for sent in
        [TransportError::Deadline { to: PEER }, TransportError::Rejected { to: PEER, reason }]
    {
        assert_eq!(answered(Err(sent)), Err(CallError::NoReply));
    }
}
