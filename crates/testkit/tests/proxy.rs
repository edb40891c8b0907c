//! The fault proxy, over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use quorate_testkit::proxy::{Behaviour, CLASSIFY_BYTES_MAX, FaultProxy, Flow};
use quorate_types::runtime::spawn;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Long enough that something which passes surely has.
const A_WHILE: Duration = Duration::from_millis(150);

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            drop(spawn(async move {
                let (mut from, mut to) = stream.split();
                drop(tokio::io::copy(&mut from, &mut to).await);
            }));
        }
    }));
    address
}

async fn proxied() -> (FaultProxy, TcpStream) {
    let proxy = FaultProxy::start(echo_server().await).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut client, b"hello").await;
    (proxy, client)
}

async fn echo(client: &mut TcpStream, bytes: &[u8]) {
    client.write_all(bytes).await.unwrap();
    expect(client, bytes).await;
}

async fn expect(client: &mut TcpStream, bytes: &[u8]) {
    let mut answer = vec![0; bytes.len()];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, bytes);
}

async fn assert_silent(client: &mut TcpStream) {
    assert!(timeout(A_WHILE, client.read_u8()).await.is_err());
}

async fn assert_closed(client: &mut TcpStream) {
    let mut rest = Vec::new();
    // Reset or end, as the system happens to tell it.
    assert!(client.read_to_end(&mut rest).await.is_err() || rest.is_empty());
}

#[tokio::test]
async fn a_healthy_proxy_is_not_there() {
    let (proxy, mut client) = proxied().await;
    let mut large = vec![0; 1 << 20];
    large.iter_mut().enumerate().for_each(|(at, byte)| *byte = at as u8);
    let (mut from, mut to) = client.split();
    let mut answer = Vec::new();
    let sending = async {
        to.write_all(&large).await.unwrap();
        to.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(biased; from.read_to_end(&mut answer), sending);
    assert_eq!(read.unwrap(), large.len());
    assert_eq!(answer, large);
    assert_eq!(proxy.behaviour(), Behaviour::healthy());
}

#[tokio::test]
async fn a_stalled_direction_delivers_when_it_heals() {
    for behaviour in [
        Behaviour::stalled(),
        Behaviour { to_server: Flow::Stall, ..Behaviour::default() },
        Behaviour { to_client: Flow::Stall, ..Behaviour::default() },
    ] {
        let (proxy, mut client) = proxied().await;
        proxy.set(behaviour);
        client.write_all(b"later").await.unwrap();
        assert_silent(&mut client).await;
        proxy.set(Behaviour::healthy());
        expect(&mut client, b"later").await;
    }
}

#[tokio::test]
async fn a_black_hole_swallows_and_the_connection_ends_when_it_heals() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Behaviour::black_hole());
    client.write_all(b"lost").await.unwrap();
    assert_silent(&mut client).await;
    proxy.set(Behaviour::healthy());
    // The next bytes must not follow on those that were lost.
    drop(client.write_all(b"next").await);
    assert_closed(&mut client).await;
    let mut again = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut again, b"new").await;
}

#[tokio::test]
async fn new_connections_are_refused_and_old_ones_stay() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Behaviour { refuses: true, ..Behaviour::default() });
    if let Ok(mut refused) = TcpStream::connect(proxy.address()).await {
        drop(refused.write_all(b"x").await);
        assert_closed(&mut refused).await;
    }
    echo(&mut client, b"still").await;
}

#[tokio::test]
async fn connections_close_on_demand_and_with_the_proxy() {
    let (proxy, mut client) = proxied().await;
    proxy.close_connections();
    assert_closed(&mut client).await;
    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut second, b"open").await;
    assert!(proxy.connections() >= 1);
    let address = proxy.address();
    drop(proxy);
    assert_closed(&mut second).await;
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn delayed_bytes_take_their_time_in_both_directions() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Behaviour { delay: Duration::from_millis(60), ..Behaviour::default() });
    let begun = Instant::now();
    echo(&mut client, b"slow").await;
    assert!(begun.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn a_client_of_a_dead_server_is_hung_up_on() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let proxy = FaultProxy::start(gone).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    assert_closed(&mut client).await;
}

#[tokio::test]
async fn jitter_delays_and_keeps_the_order() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Behaviour { jitter: Duration::from_millis(20), seed: 7, ..Behaviour::default() });
    let sent: Vec<u8> = (0..60).collect();
    let (mut from, mut to) = client.split();
    let sending = async {
        for byte in &sent {
            to.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let mut answer = vec![0; sent.len()];
    let (read, ()) = tokio::join!(biased; from.read_exact(&mut answer), sending);
    read.unwrap();
    assert_eq!(answer, sent);
    assert!(proxy.tally().late_bytes > 0);
}

#[tokio::test]
async fn throttled_bytes_take_their_time_and_the_rest_passes_when_it_is_over() {
    let (proxy, mut client) = proxied().await;
    let rate = NonZeroU32::new(10_000);
    proxy.set(Behaviour { bytes_per_second: rate, ..Behaviour::default() });
    let begun = Instant::now();
    echo(&mut client, &[1; 3_000]).await;
    // Of 3,000 bytes only the last 500 need not be waited for.
    assert!(begun.elapsed() >= Duration::from_millis(250));
    let before = proxy.tally();
    assert!(before.late_bytes >= 6_000, "{before:?}");

    proxy.set(Behaviour { bytes_per_second: NonZeroU32::new(1), ..Behaviour::default() });
    let large = [2; 100_000];
    client.write_all(&large).await.unwrap();
    assert_silent_for_long(&mut client, 50_000).await;
    proxy.set(Behaviour::healthy());
    expect(&mut client, &large[..50_000]).await;
}

/// Far fewer than `bytes` arrive; those that do are none of anybody's business.
async fn assert_silent_for_long(client: &mut TcpStream, bytes: usize) {
    let mut some = vec![0; bytes];
    let arrived = timeout(A_WHILE, client.read_exact(&mut some)).await;
    assert!(arrived.is_err(), "everything arrived at once");
}

#[tokio::test]
async fn a_slow_loris_sends_one_byte_at_a_time() {
    let (proxy, mut client) = proxied().await;
    let trickle = Some(Duration::from_millis(10));
    proxy.set(Behaviour { trickle, ..Behaviour::default() });
    let begun = Instant::now();
    echo(&mut client, b"slow as can be").await;
    assert!(begun.elapsed() >= Duration::from_millis(130));
    // An interval without end is over when the behaviour changes.
    proxy.set(Behaviour { trickle: Some(Duration::from_secs(3_600)), ..Behaviour::default() });
    client.write_all(b"never").await.unwrap();
    expect(&mut client, b"n").await;
    assert_silent(&mut client).await;
    proxy.set(Behaviour::healthy());
    expect(&mut client, b"ever").await;
}

#[tokio::test]
async fn one_bit_of_each_stretch_is_flipped_the_same_ones_for_a_seed() {
    let every = NonZeroU64::new(1_000);
    let mut answers = Vec::new();
    for seed in [5, 5, 6] {
        let proxy = FaultProxy::start(echo_server().await).await.unwrap();
        proxy.set(Behaviour { flip_every_bytes: every, seed, ..Behaviour::default() });
        let mut client = TcpStream::connect(proxy.address()).await.unwrap();
        client.write_all(&[0; 10_000]).await.unwrap();
        let mut answer = vec![0; 10_000];
        client.read_exact(&mut answer).await.unwrap();
        // Ten there and ten back, of which two may meet.
        let ones: u32 = answer.iter().map(|byte| byte.count_ones()).sum();
        assert!((16..=20).contains(&ones), "{ones} bits");
        let tally = proxy.tally();
        assert_eq!((tally.flipped_bits, tally.damaged, tally.damaged_ended), (20, 1, 0));
        drop(client);
        comes_to(|| proxy.tally().damaged_ended, 1).await;
        answers.push(answer);
    }
    assert_eq!(answers[0], answers[1]);
    assert_ne!(answers[0], answers[2]);
}

#[tokio::test]
async fn one_way_is_cut_and_the_other_is_not() {
    let (proxy, mut client) = proxied().await;
    proxy.set(Behaviour { to_client: Flow::Drop, ..Behaviour::default() });
    client.write_all(b"heard, not answered").await.unwrap();
    comes_to(|| proxy.tally().dropped_bytes, 19).await;
    assert_silent(&mut client).await;
    let tally = proxy.tally();
    assert_eq!((tally.passed_bytes, tally.dropped_bytes), (10 + 19, 19), "{tally:?}");
}

async fn comes_to(count: impl Fn() -> u64, goal: u64) {
    while count() != goal {
        tokio::task::yield_now().await;
    }
}

/// A letter for a class follows a first `#`.
fn by_letter(begun: &[u8]) -> Option<u64> {
    begun.strip_prefix(b"#")?.first().map(|letter| u64::from(*letter))
}

async fn classified() -> FaultProxy {
    FaultProxy::start_classified(echo_server().await, by_letter).await.unwrap()
}

async fn caller(proxy: &FaultProxy, name: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    echo(&mut client, name).await;
    client
}

#[tokio::test]
async fn rules_for_a_class_leave_others_alone() {
    let proxy = classified().await;
    let (a, b) = (u64::from(b'a'), u64::from(b'b'));
    let mut first = caller(&proxy, b"#a").await;
    let mut second = caller(&proxy, b"#b").await;
    proxy.set_class(a, Behaviour::black_hole());
    assert_eq!(proxy.behaviour_of(a), Behaviour::black_hole());
    assert_eq!(proxy.behaviour_of(b), Behaviour::healthy());
    first.write_all(b"lost").await.unwrap();
    assert_silent(&mut first).await;
    echo(&mut second, b"passes").await;

    // Who calls again loses its introduction as well.
    let mut again = TcpStream::connect(proxy.address()).await.unwrap();
    again.write_all(b"#").await.unwrap();
    again.write_all(b"a").await.unwrap();
    comes_to(|| proxy.tally_of(a).dropped_bytes, 4 + 2).await;
    assert_silent(&mut again).await;
    assert_eq!(proxy.tally_of(b).dropped_bytes, 0);

    // The rule for all is not the rule for a class that has its own.
    proxy.set(Behaviour { refuses: true, ..Behaviour::default() });
    proxy.set_class(b, Behaviour::healthy());
    drop(caller(&proxy, b"#b").await);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    drop(refused.write_all(b"#c").await);
    assert_closed(&mut refused).await;
    assert_eq!(proxy.tally_of(u64::from(b'c')).refused, 1);

    proxy.heal();
    drop(caller(&proxy, b"#c").await);
    drop(caller(&proxy, b"#a").await);
}

#[tokio::test]
async fn connections_of_a_class_close_on_demand() {
    let proxy = classified().await;
    let mut first = caller(&proxy, b"#a").await;
    let mut second = caller(&proxy, b"#b").await;
    proxy.close_class(u64::from(b'a'));
    assert_closed(&mut first).await;
    echo(&mut second, b"open").await;
    assert_eq!(proxy.tally().closed, 1);
    drop(caller(&proxy, b"#a").await);
}

#[tokio::test]
async fn who_is_not_recognized_has_no_class_and_loses_nothing() {
    let proxy = classified().await;
    let stranger = vec![b'x'; CLASSIFY_BYTES_MAX + 1_000];
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut from, mut to) = client.split();
    let mut answer = vec![0; stranger.len()];
    let sending = to.write_all(&stranger);
    let (read, sent) = tokio::join!(biased; from.read_exact(&mut answer), sending);
    read.unwrap();
    sent.unwrap();
    assert_eq!(answer, stranger);

    // So it is for one who ends before it said who it is.
    let mut brief = TcpStream::connect(proxy.address()).await.unwrap();
    brief.write_all(b"#").await.unwrap();
    brief.shutdown().await.unwrap();
    let mut answer = Vec::new();
    brief.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"#");
}
