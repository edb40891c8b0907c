//! The fault proxy, over loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use quorate_testkit::proxy::{Behaviour, FaultProxy, Flow};
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
