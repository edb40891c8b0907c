//! What comes over a wire, out of a log or off a disk.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use quorate_meta::{
    BootstrapFlaw, Command, IdentityFile, Limited, Refusal, Registry, Reply, Request, Response,
};
use quorate_testkit::disk::CrashDisk;
use quorate_testkit::fuzz;
use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::codec::{decode, encode, open_row, seal_row};
use quorate_types::disk::Disk;
use quorate_types::{Blob, ClusterId, NodeId, Seq};

use super::story;
use crate::common::{Host, node};

/// The format of rows and of an encoded registry.
const FORMAT: u8 = 1;

/// Bytes of the checksummed row's header, and of the whole identity file.
const ROW_HEADER_BYTES: usize = 5;
const IDENTITY_BYTES: usize = 512;

/// Elements that are two or three bytes on a wire, such as labels and voters,
/// are up to a hundred in memory.
const BYTES_PER_BYTE: usize = 64;

fn round_trip<T: PartialEq + Debug, E: Debug>(
    input: &[u8],
    read: impl Fn(&[u8]) -> Result<T, E>,
    write: impl Fn(&T) -> Bytes,
) {
    if let Ok(value) = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || read(input)) {
        assert_eq!(read(&write(&value)).unwrap(), value);
    }
}

/// A history, its commands, and their replies.
fn history(seed: u64) -> (Host, Vec<Command>, Vec<Reply>) {
    let drawn: Vec<u8> = (0..1_500_u64)
        .map(|at| (at.wrapping_add(seed << 20).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect();
    let mut choices = Choices::new(&drawn);
    let mut host = Host::bootstrapped();
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    while !choices.is_spent() {
        let command = story::command(&mut choices, &host.registry);
        if command.encode().is_ok() {
            replies.push(host.propose(command.clone()));
            commands.push(command);
        }
    }
    (host, commands, replies)
}

#[test]
fn any_bytes_are_a_command_or_none() {
    let commands: Vec<Command> = (0..4).flat_map(|seed| history(seed).1).collect();
    let corpus = Corpus::of(commands.iter().map(|command| command.encode().unwrap()));
    fuzz!(corpus, |input| {
        round_trip(input, Command::decode, |command| command.encode().unwrap());
    });
}

#[test]
fn any_bytes_are_a_reply_or_none() {
    let mut replies: Vec<Reply> = (0..4).flat_map(|seed| history(seed).2).collect();
    replies.push(Reply::Bootstrapped { cluster: ClusterId(9) });
    replies.push(Reply::Redelivered);
    replies.push(Reply::Refused(Refusal::Bootstrap { flaw: BootstrapFlaw::Version }));
    replies.push(Reply::Refused(Refusal::Limit { what: Limited::Settings, max: 256 }));
    fuzz!(Corpus::of(replies.iter().map(Reply::encode)), |input| {
        round_trip(input, Reply::decode, Reply::encode);
    });
}

#[test]
fn any_bytes_are_a_request_or_none() {
    let requests = [
        Request::Report { spec: node(3), digest: 77 },
        Request::Join(node(4)),
        Request::Propose(Blob(Command::Join(node(5)).encode().unwrap())),
        Request::View(12),
    ];
    fuzz!(Corpus::of(requests.iter().map(Request::to_bytes)), |input| {
        round_trip(input, Request::from_bytes, Request::to_bytes);
    });
}

#[test]
fn any_bytes_are_a_response_or_none() {
    let (host, ..) = history(1);
    let responses = [
        Response::Cluster(Some(ClusterId(3))),
        Response::Proposed(Blob(Reply::Redelivered.encode())),
        Response::View(Blob(host.registry.encode())),
        Response::NotLeader(Some(NodeId(2))),
        Response::Refused("no".into()),
        Response::Unavailable("later".into()),
    ];
    fuzz!(Corpus::of(responses.iter().map(Response::to_bytes)), |input| {
        round_trip(input, Response::from_bytes, Response::to_bytes);
    });
}

/// Whatever a registry holds that loads, it can be asked and stored.
fn ask(registry: &Registry) {
    let view = registry.view();
    for (group, record) in view.groups() {
        for replica in &record.replicas {
            let _ = (view.birth(group, replica), view.is_retired(group, replica.id));
            let _ = view.replicas_on(replica.node).count();
        }
    }
    for operator in view.running_operators() {
        let _ = view.replacement(operator);
    }
    let _ = (view.locate(b"m"), view.target_replicas(), view.ended_operators().count());
    let again = Registry::decode(&registry.encode()).unwrap();
    assert_eq!(again, *registry, "a registry that was read is written as it is");
}

/// Rows behind their checksums: `[length of the key u8][key][payload]` changed.
#[test]
fn any_rows_are_a_registry_or_none() {
    let (host, ..) = history(2);
    let joined = host.rows.iter().map(|(key, row)| {
        let (_, payload) = open_row(key, FORMAT, row).unwrap();
        [&[key.len() as u8][..], key, payload].concat()
    });
    fuzz!(Corpus::of(joined), |input| {
        let (len, rest) = input.split_first().unwrap_or((&0, &[]));
        let (key, payload) = rest.split_at(usize::from(*len).min(rest.len()));
        let mut rows = host.rows.clone();
        rows.insert(key.into(), Blob(seal_row(key, FORMAT, payload)));
        if let Ok(registry) = Registry::load(rows) {
            ask(&registry);
        }
    });
}

#[test]
fn any_bytes_are_an_encoded_registry_or_none() {
    const NAME: &[u8] = b"quorate registry";
    let encodings = [history(3).0, Host::bootstrapped(), Host::default()];
    let payloads = encodings.map(|host| host.registry.encode().slice(ROW_HEADER_BYTES..));
    fuzz!(Corpus::of(payloads), |input| {
        let _ = fuzz::frugal_by(BYTES_PER_BYTE, input.len(), || Registry::decode(input).is_ok());
        let Ok(mut rows) = decode::<Seq<(Blob, Blob)>>(input) else { return };
        // Rows whose own checksums hold, in whatever number and order.
        for (key, row) in rows.iter_mut() {
            let payload = row.get(ROW_HEADER_BYTES..).unwrap_or_default();
            *row = Blob(seal_row(key, FORMAT, payload));
        }
        if let Ok(registry) = Registry::decode(&seal_row(NAME, FORMAT, &encode(&rows))) {
            ask(&registry);
        }
    });
}

/// The file of an identity, sealed anew so that what is behind the checksum is
/// reached, or as it is.
#[test]
fn any_file_is_an_identity_or_none() {
    let disk = CrashDisk::new(1);
    IdentityFile::open(&disk, NodeId(1)).unwrap().adopt(ClusterId(9)).unwrap();
    let mut bytes = vec![0; IDENTITY_BYTES];
    let file = disk.open("identity").unwrap();
    file.read(0, &mut bytes).unwrap();
    let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
    let payload = bytes[4 + ROW_HEADER_BYTES..4 + len].to_vec();
    fuzz!(Corpus::of([payload, bytes.clone()]), |input| {
        let row = seal_row(b"identity", FORMAT, input);
        let mut sealed = [&(row.len() as u32).to_be_bytes()[..], &row].concat();
        sealed.resize(IDENTITY_BYTES, 0);
        for content in [input, &sealed[..]] {
            let disk = CrashDisk::new(1);
            let file: Arc<_> = disk.open("identity").unwrap();
            file.write(0, content).unwrap();
            drop(file);
            let Ok(opened) = IdentityFile::open(&disk, NodeId(1)) else { continue };
            opened.begin().unwrap();
            let identity = opened.identity();
            drop(opened);
            let next = IdentityFile::open(&disk, NodeId(1)).unwrap().identity();
            assert_eq!((next.disk, next.cluster), (identity.disk, identity.cluster));
        }
    });
}
