//! Segments behind their checksums, and what the log makes of them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::Corpus;
use quorate_types::disk::Disk;
use quorate_types::{GroupId, ReplicaId, Seq};

use super::super::fuzz::live_with;
use super::super::medium::NewEntry;
use super::super::rows::{GroupRow, OwnerRow};
use super::super::{DurableLog, LogConfig, LogEngine, LogPosition};
use super::format::{
    FRAME_HEADER_BYTES, FRAMES_AT, FrameBuilder, Head, Header, Kind, entries, rows, seal,
};
use crate::consensus::tests::support::{RamDisk, SEGMENTS, open_on, simulate, small_log};

const CAPACITY: u64 = 64 << 10;

fn header() -> Header {
    Header { number: 1, replaced: 0, capacity: CAPACITY, salt: 3, mark: bytes::Bytes::new() }
}

/// The bodies of frames, each behind the length of its rows.
fn bodies(kind: Kind) -> Vec<Vec<u8>> {
    let (group, replica) = (GroupId(1), ReplicaId(11));
    let row = GroupRow { owner: Some(OwnerRow::new(replica)), tombstones: Seq(vec![ReplicaId(3)]) };
    let body = |count: u64| {
        let seed = header().seed();
        let mut frame = FrameBuilder::new(kind, seed, FRAMES_AT, BytesMut::new());
        if kind == Kind::Checkpoint {
            frame.list(&[]);
        }
        frame.row(group, &row);
        let entry = |index| NewEntry {
            group,
            replica,
            position: LogPosition { term: 1, index },
            ticket: 0,
            payload: b"payload"[..].into(),
            is_rewritten: false,
        };
        let entries: Vec<_> = (4..4 + count).map(entry).collect();
        let frame = frame.finish(1, &entries);
        let rows_len = u16::from_be_bytes([frame.bytes[6], frame.bytes[7]]);
        let entries_len = usize::from(u16::from_be_bytes([frame.bytes[10], frame.bytes[11]]));
        let end = FRAME_HEADER_BYTES + usize::from(rows_len) + entries_len;
        [&rows_len.to_be_bytes()[..], &frame.bytes[FRAME_HEADER_BYTES..end]].concat()
    };
    vec![body(0), body(3)]
}

/// The length of the rows, and the body.
fn parts(input: &[u8]) -> Option<(usize, &[u8])> {
    let (len, body) = input.split_first_chunk()?;
    Some((usize::from(u16::from_be_bytes(*len)).min(body.len()), body))
}

#[test]
fn any_bytes_are_a_header_or_none() {
    fuzz!(Corpus::of([header().encode()]), |input| {
        if let Head::Segment(header) = Header::decode(input) {
            assert_eq!(header.encode(), input);
        }
    });
}

#[test]
fn any_bytes_are_the_body_of_a_frame_or_none() {
    let corpus = [bodies(Kind::Checkpoint), bodies(Kind::Commit)].concat();
    fuzz!(Corpus::of(corpus), |input| {
        let Some((rows_len, body)) = parts(input) else { return };
        let (row_bytes, entry_bytes) = body.split_at(rows_len);
        for kind in [Kind::Checkpoint, Kind::Commit, Kind::End] {
            fuzz::frugal(input.len(), || rows(kind, row_bytes));
        }
        let mut found = Vec::new();
        let rows_len = u32::try_from(rows_len).unwrap();
        let is_sound = fuzz::frugal(input.len(), || entries(7, rows_len, entry_bytes, &mut found));
        for entry in is_sound.map(|()| found).unwrap_or_default() {
            let start = entry.location.offset as usize - FRAME_HEADER_BYTES;
            assert!(body.get(start..start + entry.location.len as usize).is_some());
        }
    });
}

/// A checkpoint, or a commit behind one.
#[test]
fn a_log_with_any_frame_is_refused_or_lives_on() {
    let named =
        |kind: Kind| bodies(kind).into_iter().map(move |it| [vec![kind as u8], it].concat());
    let corpus: Vec<_> = named(Kind::Checkpoint).chain(named(Kind::Commit)).collect();
    fuzz!(Corpus::of(corpus), |input| {
        let Some((kind, input)) = input.split_first() else { return };
        let Some((rows_len, body)) = parts(input).filter(|(_, body)| body.len() < 8_000) else {
            return;
        };
        let sealed = |kind, offset, rows_len: usize, body: &[u8]| {
            let mut bytes = BytesMut::zeroed(FRAME_HEADER_BYTES);
            bytes.put_slice(body);
            seal(kind, header().seed(), offset, FRAME_HEADER_BYTES + rows_len, &mut bytes);
            bytes
        };
        let disk = RamDisk::default();
        let file = disk.open("raft.000001").unwrap();
        file.set_len(CAPACITY).unwrap();
        file.write(0, &header().encode()).unwrap();
        let mut at = FRAMES_AT;
        if kind % 2 == 0 {
            let first = sealed(Kind::Checkpoint, at, 4, &[0; 4]);
            file.write(at, &first).unwrap();
            at += first.len() as u64;
        }
        let kind = if kind % 2 == 0 { Kind::Commit } else { Kind::Checkpoint };
        file.write(at, &sealed(kind, at, rows_len, body)).unwrap();
        simulate(async {
            let config = LogConfig { medium: SEGMENTS, ..small_log() };
            let opened = DurableLog::open(Arc::new(disk.clone()), "raft", config);
            let Ok(log) = opened else { return };
            live_with(&log).await;
            log.close().await.unwrap();
            drop(log);
            let again = open_on(&disk, SEGMENTS);
            assert_eq!(again.groups(), []);
            again.close().await.unwrap();
        });
    });
}
