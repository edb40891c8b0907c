//! Rows, commands and whole registries as bytes, sound and damaged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use common::*;
use proptest::prelude::*;
use quorate_meta::limits::COMMAND_BYTES_MAX;
use quorate_meta::{
    COMMAND_VERSION, Command, JournalWrite, Limited, MetaError, Refusal, Registry, Reply, Request,
    Response, SettingValue, SplitPhase, Violation,
};
use quorate_types::codec::{CodecError, seal_row};
use quorate_types::{Blob, ClusterId, MigrationId, NodeId};

/// A host with a row of every kind.
fn full() -> Host {
    let mut host = Host::with_spare();
    host.ordered_split();
    host.propose(Command::Set { name: "x".into(), value: Some(SettingValue::Text("y".into())) });
    host.propose(Command::Journal(JournalWrite {
        id: MigrationId(1),
        expected: None,
        row: "row".into(),
        finished: false,
    }));
    host
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_redelivered_entry_changes_nothing() {
    let mut host = Host::bootstrapped();
    let entry = Command::Join(node(4)).encode().unwrap();
    host.index += 1;
    host.deliver(&entry);
    let before = host.registry.clone();
    let applied = host.registry.apply(host.index, &entry).unwrap();
    assert_eq!((applied.reply, applied.mutations), (Reply::Redelivered, Vec::new()));
    assert_eq!(host.registry, before);
}

#[test]
fn an_entry_of_a_newer_format_halts() {
    let mut host = Host::bootstrapped();
    let before = host.registry.clone();
    let mut entry = Command::Join(node(4)).encode().unwrap().to_vec();
    entry[0] = COMMAND_VERSION + 1;
    let error = host.registry.apply(2, &entry).unwrap_err();
    let newer = matches!(
        error,
        MetaError::Command { index: 2, source: CodecError::Newer { found: 2, known: 1 } }
    );
    assert!(newer);
    assert_eq!(host.registry, before);
}

#[test]
fn an_entry_that_is_no_command_halts() {
    let mut host = Host::bootstrapped();
    let mut trailing = Command::Join(node(4)).encode().unwrap().to_vec();
    trailing.push(0);
    for entry in [&[][..], &[1], &[1, 0x92, 0x63, 0xc0], &trailing] {
        let error = host.registry.apply(2, entry).unwrap_err();
        assert!(matches!(error, MetaError::Command { index: 2, .. }), "{entry:?}");
    }
}

#[test]
fn an_oversized_entry_is_refused_and_never_encoded() {
    let huge = Command::Set {
        name: "x".into(),
        value: Some(SettingValue::Text("y".repeat(COMMAND_BYTES_MAX))),
    };
    assert!(matches!(huge.encode(), Err(MetaError::CommandTooLarge { .. })));
    let mut host = Host::bootstrapped();
    host.index += 1;
    let reply = host.deliver(&vec![0; COMMAND_BYTES_MAX + 1]);
    let limit = Refusal::Limit { what: Limited::CommandBytes, max: COMMAND_BYTES_MAX as u64 };
    assert_eq!(reply, Reply::Refused(limit));
}

#[test]
fn a_damaged_row_stops_the_load_and_is_named() {
    let host = full();
    for (key, row) in &host.rows {
        for at in 0..row.len() {
            let mut damaged = row.to_vec();
            damaged[at] ^= 0x10;
            let mut rows = host.rows.clone();
            rows.insert(key.clone(), damaged.into());
            match Registry::load(rows).unwrap_err() {
                MetaError::Row { key: named, .. } => assert_eq!(named, *key),
                error => panic!("{error}"),
            }
        }
    }
}

#[test]
fn a_row_under_another_key_is_found_out() {
    let mut rows = full().rows;
    let first = Blob::from(&[b'n', 0, 0, 0, 0, 0, 0, 0, 1]);
    let second = Blob::from(&[b'n', 0, 0, 0, 0, 0, 0, 0, 2]);
    let row = rows[&second].clone();
    rows.insert(first.clone(), row);
    let error = Registry::load(rows).unwrap_err();
    assert!(
        matches!(error, MetaError::Row { key, source: CodecError::Checksum { .. } } if key == first)
    );
}

#[test]
fn a_row_of_a_newer_format_stops_the_load() {
    let mut rows = full().rows;
    let key = Blob::from(b"h");
    rows.insert(key.clone(), Blob(seal_row(&key, 2, b"from the future")));
    let error = Registry::load(rows).unwrap_err();
    assert!(matches!(error, MetaError::Row { source: CodecError::Newer { .. }, .. }));
}

#[test]
fn an_unknown_row_stops_the_load() {
    for key in ["q", "n123", "", "hh"] {
        let mut rows = full().rows;
        rows.insert(key.into(), "anything".into());
        let error = Registry::load(rows).unwrap_err();
        assert!(matches!(error, MetaError::UnknownRow { key: named } if named == key.into()));
    }
}

#[test]
fn a_missing_row_stops_the_load() {
    let host = full();
    let without = |kind: u8| {
        let mut rows = host.rows.clone();
        let key = rows.keys().find(|key| key.first() == Some(&kind)).unwrap().clone();
        rows.remove(&key);
        match Registry::load(rows).unwrap_err() {
            MetaError::Inconsistent(violation) => violation,
            error => panic!("{error}"),
        }
    };
    assert_eq!(without(b'h'), Violation::HeaderMissing);
    assert!(matches!(without(b's'), Violation::RangesDoNotPartition(_)));
    assert!(matches!(without(b'g'), Violation::GroupMismatch(_)));
    assert!(matches!(without(b'n'), Violation::ReplicaOnNoMember { .. }));
}

#[test]
fn a_restart_keeps_the_counters() {
    let mut host = full();
    let mut restarted = Host { registry: host.reloaded(), rows: host.rows.clone(), ..host };
    host = Host { registry: restarted.registry.clone(), rows: restarted.rows.clone(), ..restarted };
    let next = host.operator(host.begin_move(quorate_meta::METADATA_GROUP, replace(1, 4)));
    let same =
        restarted.operator(restarted.begin_move(quorate_meta::METADATA_GROUP, replace(1, 4)));
    assert_eq!(next, same);
}

#[test]
fn a_whole_registry_travels() {
    let host = full();
    assert_eq!(Registry::decode(&host.registry.encode()).unwrap(), host.registry);
    assert_eq!(Registry::decode(&Registry::default().encode()).unwrap(), Registry::default());
    let rows: Vec<_> = host.registry.rows().collect();
    let stored: Vec<_> = host.rows.into_iter().collect();
    let mut sorted = rows;
    sorted.sort();
    assert_eq!(sorted, stored);
}

#[test]
fn replies_travel() {
    let mut host = full();
    let replies = [
        host.propose(advance(ORDERED, SplitPhase::Planned)),
        host.propose(install(2, 2)),
        host.propose(FINISH),
        host.propose(Command::Join(node(5))),
        host.propose(Command::Bootstrap(bootstrap(3, &["m"]))),
    ];
    for reply in replies {
        assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
    }
}

/// The formats of version 1. A change here needs a new version, and a cluster
/// version that gates it.
#[test]
fn the_formats_are_what_they_were() {
    let command = Command::Journal(JournalWrite {
        id: MigrationId(1),
        expected: Some(2),
        row: "r".into(),
        finished: true,
    });
    assert_eq!(
        hex(&command.encode().unwrap()),
        "01920c94c41000000000000000000000000000000001\
         02c40172c3"
    );
    let join = Command::Join(node(4)).encode().unwrap();
    assert_eq!(hex(&join), "0192019504c41000000000000000040000000000000000a76e343a373030309001");
    let host = Host::bootstrapped();
    let shard = &host.rows[&Blob::from(&[b's', 0, 0, 0, 0, 0, 0, 0, 2])];
    assert_eq!(hex(&shard[5..]), "9412 92c4016dc0 01c0".replace(' ', ""));
    let header = &host.rows[&Blob::from(b"h")];
    assert_eq!(hex(&header[5..]), "96c4100000000000000000000000000000004d0101010d03");
}

proptest! {
    #[test]
    fn decoders_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Command::decode(&bytes);
        let _ = Reply::decode(&bytes);
        let _ = Registry::decode(&bytes);
        let _ = Registry::decode(&seal_row(b"quorate registry", 1, &bytes));
        let versioned: Vec<u8> = std::iter::once(1).chain(bytes).collect();
        let _ = Command::decode(&versioned);
        let _ = Reply::decode(&versioned);
    }

    #[test]
    fn a_damaged_registry_is_never_taken_in(at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = full().registry.encode().to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Registry::decode(&bytes).is_err());
    }
}

#[test]
fn requests_and_responses_travel_and_a_newer_one_is_refused() {
    let requests = [
        Request::Report { spec: node(1), digest: u64::MAX },
        Request::Join(in_zone(2, "z")),
        Request::Propose("entry".into()),
        Request::View(7),
    ];
    for request in requests {
        let mut bytes = request.to_bytes().to_vec();
        assert_eq!(Request::from_bytes(&bytes).unwrap(), request);
        bytes[0] += 1;
        let newer = Request::from_bytes(&bytes).unwrap_err();
        assert!(matches!(newer, MetaError::Encoding(CodecError::Newer { found: 2, known: 1 })));
    }
    let responses = [
        Response::Cluster(Some(ClusterId(77))),
        Response::Proposed("reply".into()),
        Response::View(Blob::new()),
        Response::NotLeader(Some(NodeId(3))),
        Response::Refused("no".to_owned()),
        Response::Unavailable("later".to_owned()),
    ];
    for response in responses {
        let bytes = response.to_bytes();
        assert_eq!(Response::from_bytes(&bytes).unwrap(), response);
        assert!(Response::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    }
}
