//! Two nodes come together in one bounded exchange, or learn why not.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_types::codec::{decode, encode};
use quorate_types::env::{Clock, SystemClock};
use quorate_types::frame::{Frame, read_frame_exactly, write_frame};
use quorate_types::hello::{
    self, ClockAhead, HELLO_BYTES_MAX, HELLO_KIND, HELLO_REPLY_KIND, Handshake, Hello, HelloError,
    HelloReply, Introduction, Protocol,
};
use quorate_types::hlc::DRIFT_MILLIS_MAX;
use quorate_types::{Blob, ClusterId, DiskId, NodeId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const DEADLINE: Duration = Duration::from_secs(5);
const NOON_MILLIS: u64 = 1_700_000_000_000;

/// A clock that stands still.
struct Stopped(u64);

impl Clock for Stopped {
    fn wall_millis(&self) -> u64 {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

fn hello(node: u64) -> Hello {
    Hello {
        protocol: Protocol::Gossip,
        lane: 1,
        cluster: Some(ClusterId(7)),
        node: NodeId(node),
        disk: DiskId(u128::MAX - u128::from(node)),
        incarnation: u64::MAX,
        address: Blob::from("host:7100"),
    }
}

/// What both sides of a handshake find between clocks at these times.
async fn meet(
    caller_millis: u64,
    listener_millis: u64,
) -> (Result<Hello, HelloError>, Result<Hello, HelloError>) {
    let (mut caller, mut listener) = duplex(64);
    let (here, there) = (Stopped(caller_millis), Stopped(listener_millis));
    let ours = hello(1);
    let dialing = Handshake { clock: &here, deadline: DEADLINE };
    let answering = Handshake { clock: &there, deadline: DEADLINE };
    tokio::join!(
        dialing.dial(&mut caller, &ours),
        answering.answer(&mut listener, |_| Ok(hello(2)))
    )
}

fn clock_ahead(outcome: &Result<Hello, HelloError>) -> Option<ClockAhead> {
    let Err(HelloError::Io(error)) = outcome else { return None };
    error.get_ref()?.downcast_ref().copied()
}

/// A stream on which `bytes` have arrived and no more will.
async fn arrived(bytes: &[u8]) -> DuplexStream {
    let (mut theirs, ours) = duplex(bytes.len().max(1));
    theirs.write_all(bytes).await.unwrap();
    theirs.shutdown().await.unwrap();
    ours
}

fn framed(kind: u8, version: u8, payload: &[u8]) -> Vec<u8> {
    let payload = payload.to_vec().into();
    Frame { kind, version, payload }.to_bytes().unwrap().to_vec()
}

async fn answer_to(bytes: &[u8]) -> Result<Hello, HelloError> {
    hello::answer(&mut arrived(bytes).await, DEADLINE, |_| Ok(hello(2))).await
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let (mut caller, mut listener) = duplex(64);
    let ours = hello(1);
    let (met, welcomed) = tokio::join!(
        hello::dial(&mut caller, &ours, DEADLINE),
        hello::answer(&mut listener, DEADLINE, |theirs| {
            assert_eq!(*theirs, hello(1));
            Ok(hello(2))
        })
    );
    assert_eq!((met.unwrap(), welcomed.unwrap()), (hello(2), hello(1)));
}

#[tokio::test]
async fn what_follows_the_handshake_stays_in_the_stream() {
    let (mut caller, mut listener) = duplex(1 << 10);
    let mut early = framed(HELLO_KIND, 1, &introduction(&hello(1)));
    early.extend_from_slice(b"next");
    caller.write_all(&early).await.unwrap();
    hello::answer(&mut listener, DEADLINE, |_| Ok(hello(2))).await.unwrap();
    let mut next = [0; 4];
    listener.read_exact(&mut next).await.unwrap();
    assert_eq!(&next, b"next");
}

#[tokio::test]
async fn a_refusal_reaches_the_caller_and_is_an_error_on_both_sides() {
    let (mut caller, mut listener) = duplex(64);
    let ours = hello(1);
    let (dialed, answered) = tokio::join!(
        hello::dial(&mut caller, &ours, DEADLINE),
        hello::answer(&mut listener, DEADLINE, |_| Err("join under a new id".to_owned()))
    );
    for outcome in [dialed, answered] {
        let Err(HelloError::Refused(reason)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason, "join under a new id");
    }
}

#[tokio::test]
async fn a_refusal_in_many_words_still_arrives() {
    let (mut caller, mut listener) = duplex(64);
    let ours = hello(1);
    let (dialed, _) = tokio::join!(
        hello::dial(&mut caller, &ours, DEADLINE),
        hello::answer(&mut listener, DEADLINE, |_| Err("no ".repeat(10_000)))
    );
    assert!(matches!(dialed, Err(HelloError::Refused(reason)) if reason.starts_with("no no ")));
}

#[tokio::test]
async fn clocks_within_the_drift_meet() {
    for (caller, listener) in [(0, 0), (DRIFT_MILLIS_MAX, 0), (0, DRIFT_MILLIS_MAX)] {
        let (dialed, answered) = meet(NOON_MILLIS + caller, NOON_MILLIS + listener).await;
        assert_eq!((dialed.unwrap(), answered.unwrap()), (hello(2), hello(1)));
    }
}

#[tokio::test]
async fn a_caller_whose_clock_is_ahead_is_refused_and_told_so() {
    let millis = DRIFT_MILLIS_MAX + 2_501;
    let (dialed, answered) = meet(NOON_MILLIS + millis, NOON_MILLIS).await;
    let ahead = ClockAhead { node: NodeId(1), millis };
    assert_eq!(clock_ahead(&dialed), Some(ahead));
    assert_eq!(clock_ahead(&answered), Some(ahead));
    assert_eq!(
        dialed.unwrap_err().to_string(),
        "connection failed during the handshake: the clock of n1 is 3.001 s ahead of its \
         peer's, 500 ms are allowed; fix the clock that is wrong"
    );
}

/// Otherwise the two would meet whenever the node that is behind calls.
#[tokio::test]
async fn a_listener_whose_clock_is_ahead_is_left_alone() {
    let millis = DRIFT_MILLIS_MAX + 1;
    let (dialed, _) = meet(NOON_MILLIS, NOON_MILLIS + millis).await;
    assert_eq!(clock_ahead(&dialed), Some(ClockAhead { node: NodeId(2), millis }));
}

#[tokio::test]
async fn who_does_not_belong_here_hears_that_before_the_time() {
    let (mut caller, mut listener) = duplex(64);
    let (here, there) = (Stopped(u64::MAX), Stopped(NOON_MILLIS));
    let ours = hello(1);
    let dialing = Handshake { clock: &here, deadline: DEADLINE };
    let answering = Handshake { clock: &there, deadline: DEADLINE };
    let (dialed, _) = tokio::join!(
        dialing.dial(&mut caller, &ours),
        answering.answer(&mut listener, |_| Err("another cluster".to_owned()))
    );
    assert!(matches!(dialed, Err(HelloError::Refused(_))));
}

#[tokio::test]
async fn the_time_is_that_of_the_handshake_and_not_of_the_introduction() {
    let (mut caller, mut listener) = duplex(1 << 10);
    let (here, ours) = (Stopped(NOON_MILLIS), hello(1));
    let dialing = Handshake { clock: &here, deadline: DEADLINE };
    let listening = async {
        let frame = read_frame_exactly(&mut listener, HELLO_BYTES_MAX).await.unwrap();
        let introduction: Introduction = decode(&frame.payload).unwrap();
        assert_eq!(introduction, Introduction { hello: hello(1), wall_millis: NOON_MILLIS });
        drop(listener);
    };
    let (dialed, ()) = tokio::join!(dialing.dial(&mut caller, &ours), listening);
    assert!(matches!(dialed, Err(HelloError::Io(_))));
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_ends_the_handshake_at_the_deadline() {
    let (mut caller, _silent) = duplex(1 << 10);
    let begun = tokio::time::Instant::now();
    let dialed = hello::dial(&mut caller, &hello(1), DEADLINE).await;
    assert!(
        matches!(&dialed, Err(HelloError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    );
    assert_eq!(begun.elapsed().as_secs(), DEADLINE.as_secs());

    let (mut listener, _silent) = duplex(1 << 10);
    let answered = hello::answer(&mut listener, DEADLINE, |_| Ok(hello(2))).await;
    assert!(
        matches!(&answered, Err(HelloError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drips_does_not_hold_the_handshake_open() {
    let (mut drip, mut listener) = duplex(1 << 10);
    let bytes = framed(HELLO_KIND, 1, &introduction(&hello(1)));
    let dripping = async {
        for byte in bytes {
            tokio::time::sleep(Duration::from_secs(1)).await;
            if drip.write_all(&[byte]).await.is_err() {
                return;
            }
        }
    };
    let answering = async move { hello::answer(&mut listener, DEADLINE, |_| Ok(hello(2))).await };
    let (answered, ()) = tokio::join!(answering, dripping);
    assert!(
        matches!(&answered, Err(HelloError::Io(error)) if error.kind() == io::ErrorKind::TimedOut)
    );
}

fn introduction(hello: &Hello) -> Vec<u8> {
    let wall_millis = SystemClock::new().wall_millis();
    encode(&Introduction { hello: hello.clone(), wall_millis }).to_vec()
}

#[tokio::test]
async fn frames_of_other_kinds_and_formats_are_no_handshake() {
    let good = introduction(&hello(1));
    for frame in [
        framed(HELLO_REPLY_KIND, 1, &good),
        framed(0x01, 1, &good),
        framed(HELLO_KIND, 2, &good),
        framed(HELLO_KIND, 0, &good),
        framed(HELLO_KIND, 1, &good[..good.len() - 1]),
        framed(HELLO_KIND, 1, &[&good[..], &[0]].concat()),
        framed(HELLO_KIND, 1, &encode(&hello(1))),
    ] {
        let answered = answer_to(&frame).await;
        assert!(matches!(answered, Err(HelloError::Malformed(_))), "{answered:?}");
    }
}

#[tokio::test]
async fn an_introduction_that_announces_too_much_is_refused_at_once() {
    let mut header = BytesMut::new();
    header.put_u32(HELLO_BYTES_MAX + 1);
    header.put_slice(&[HELLO_KIND, 1, 0, 0, 0, 0]);
    let answered = answer_to(&header).await;
    assert!(
        matches!(&answered, Err(HelloError::Io(error)) if error.kind() == io::ErrorKind::InvalidData)
    );
}

#[tokio::test]
async fn an_answer_that_is_garbage_is_an_error() {
    for answer in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], &[0xff; 64], &[0; 64], b""] {
        let (mut caller, mut peer) = duplex(1 << 10);
        let ours = hello(1);
        let answering = async {
            read_frame_exactly(&mut peer, HELLO_BYTES_MAX).await.unwrap();
            peer.write_all(answer).await.unwrap();
            drop(peer);
        };
        let (dialed, ()) = tokio::join!(hello::dial(&mut caller, &ours, DEADLINE), answering);
        assert!(matches!(dialed, Err(HelloError::Io(_) | HelloError::Malformed(_))));
    }
}

#[tokio::test]
async fn the_largest_introduction_is_bounded_on_the_sender_s_side_too() {
    let long = Hello { address: vec![b'a'; HELLO_BYTES_MAX as usize].into(), ..hello(1) };
    let mut wire = Vec::new();
    let introduction = Introduction { hello: long, wall_millis: 0 };
    write_frame(&mut wire, &Frame::new(HELLO_KIND, encode(&introduction))).await.unwrap();
    assert!(matches!(answer_to(&wire).await, Err(HelloError::Io(_))));
}

proptest! {
    #[test]
    fn messages_come_back_as_they_were(
        node: u64, lane: u8, incarnation: u64, wall_millis: u64, disk: u128,
        cluster in proptest::option::of(any::<u128>()),
        address in vec(any::<u8>(), 0..100),
    ) {
        let hello = Hello {
            protocol: Protocol::Mesh,
            lane,
            cluster: cluster.map(ClusterId),
            node: NodeId(node),
            disk: DiskId(disk),
            incarnation,
            address: address.into(),
        };
        let introduction = Introduction { hello, wall_millis };
        let replies = [
            HelloReply::Welcome(introduction.clone()),
            HelloReply::Refused(introduction.hello.address.clone()),
            HelloReply::Ahead(wall_millis),
        ];
        for reply in replies {
            prop_assert_eq!(&decode::<HelloReply>(&encode(&reply)).unwrap(), &reply);
        }
        let bytes = encode(&introduction);
        prop_assert_eq!(decode::<Introduction>(&bytes).unwrap(), introduction);
        for cut in 0..bytes.len() {
            prop_assert!(decode::<Introduction>(&bytes[..cut]).is_err());
        }
    }

    #[test]
    fn garbage_is_no_introduction(garbage in vec(any::<u8>(), 0..200)) {
        prop_assert!(decode::<Introduction>(&garbage).is_err());
        let _ = decode::<HelloReply>(&garbage);
    }
}
