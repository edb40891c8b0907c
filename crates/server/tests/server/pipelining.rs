//! Many commands in flight: their order, their number, their end.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use quorate_server::GatewayLimits;
use quorate_types::env::{Rng, SplitMix};

use crate::memory::Fault;
use crate::support::{Server, encode};

/// Calls take effect after random delays, so only the gateway's order can
/// keep a connection's commands on a key in theirs.
#[tokio::test]
async fn order_per_key_holds_whatever_the_backend_does() {
    let server = Server::start().await;
    server.backend.delay_steps_max.store(20, Ordering::Relaxed);
    let mut client = server.client().await;
    let mut chance = SplitMix::new(1);
    let mut model: BTreeMap<String, i64> = BTreeMap::new();
    let (mut wire, mut expected) = (Vec::new(), String::new());
    for i in 0..2_000 {
        let key = format!("k{}", chance.next_u64() % 7);
        let other = format!("k{}", chance.next_u64() % 7);
        let bulk = |n: i64| format!("${}\r\n{n}\r\n", n.to_string().len());
        match chance.next_u64() % 20 {
            0..8 => {
                let value = model.entry(key.clone()).or_default();
                *value += 1;
                expected += &format!(":{value}\r\n");
                wire.extend(encode(&["INCR", &key]));
            }
            8..13 => {
                expected += &model.get(&key).map_or("$-1\r\n".into(), |n| bulk(*n));
                wire.extend(encode(&["GET", &key]));
            }
            13..16 => {
                model.insert(key.clone(), i);
                model.insert(other.clone(), i);
                expected += "+OK\r\n";
                wire.extend(encode(&["MSET", &key, &i.to_string(), &other, &i.to_string()]));
            }
            16 => {
                expected += &format!(":{}\r\n", model.len());
                wire.extend(encode(&["DBSIZE"]));
            }
            17 => {
                expected += &format!(":{}\r\n", i64::from(model.remove(&key).is_some()));
                wire.extend(encode(&["DEL", &key]));
            }
            18 => {
                expected += "+PONG\r\n";
                wire.extend(b"PING\r\n");
            }
            _ => {
                let value = model.entry(key.clone()).or_default();
                *value += 2;
                let second = bulk(*value);
                expected += &format!("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:{value}\r\n{second}");
                wire.extend(b"MULTI\r\n");
                wire.extend(encode(&["INCRBY", &key, "2"]));
                wire.extend(encode(&["GET", &key]));
                wire.extend(b"EXEC\r\n");
            }
        }
    }
    client.send(&wire).await;
    client.expect(&expected).await;
}

#[tokio::test]
async fn commands_on_different_keys_run_at_the_same_time_within_the_bound() {
    let limits = GatewayLimits { concurrency_max: 4, ..GatewayLimits::default() };
    let server = Server::with_limits(limits).await;
    server.backend.delay_steps_max.store(50, Ordering::Relaxed);
    let mut client = server.client().await;
    let wire: Vec<u8> = (0..100).flat_map(|i| encode(&["SET", &format!("k{i}"), "v"])).collect();
    client.send(&wire).await;
    client.expect(&"+OK\r\n".repeat(100)).await;
    assert_eq!(server.backend.running_max.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_being_read_and_loses_nothing() {
    let limits = GatewayLimits {
        pipeline_commands_max: 10,
        pipeline_bytes_max: 2_000,
        reply_bytes_max: 4_000,
        ..GatewayLimits::default()
    };
    let server = Server::with_limits(limits).await;
    let mut client = server.client().await;
    let value = "v".repeat(100_000);
    client.send(encode(&["SET", "big", &value])).await;
    client.expect("+OK\r\n").await;
    const GETS: usize = 300;
    let (mut reader, mut writer) = client.stream.into_split();
    let sent = quorate_types::runtime::spawn(async move {
        use tokio::io::AsyncWriteExt;
        for _ in 0..GETS {
            writer.write_all(&encode(&["GET", "big"])).await.unwrap();
        }
        writer
    });
    let one = format!("$100000\r\n{value}\r\n");
    let mut left = one.len() * GETS;
    let mut piece = vec![0; 1 << 16];
    while left > 0 {
        use tokio::io::AsyncReadExt;
        let length = reader.read(&mut piece).await.unwrap();
        assert_ne!(length, 0);
        left -= length;
    }
    drop(sent.await.unwrap());
}

#[tokio::test]
async fn refused_is_an_answer_and_unknown_is_the_end() {
    let server = Server::start().await;
    let mut client = server.client().await;
    *server.backend.fault.lock() = Some(Fault::Refuse);
    client.check("SET a 1", "-REFUSED not executed: no quorum, retry\r\n").await;
    client.check("SCAN 0", "*2\r\n$1\r\n0\r\n*0\r\n").await;
    *server.backend.fault.lock() = Some(Fault::Unknown);
    // What was answered before goes out; nothing is answered after.
    client.send("PING\r\nSET a 1\r\nPING\r\nSET a 2\r\n").await;
    assert_eq!(client.rest().await, r"+PONG\r\n");
    *server.backend.fault.lock() = None;
    server.client().await.check("GET a", "$-1\r\n").await;
}

#[tokio::test]
async fn what_was_received_is_answered_before_the_end() {
    let server = Server::start().await;
    server.backend.delay_steps_max.store(100, Ordering::Relaxed);
    let mut client = server.client().await;
    client.send("INCR a\r\nINCR a\r\nINCR b\r\nQUIT\r\nINCR a\r\n").await;
    assert_eq!(client.rest().await, r":1\r\n:2\r\n:1\r\n+OK\r\n");

    // Half a connection is closed; the other half still answers.
    let mut client = server.client().await;
    client.send("INCR a\r\nINCR a\r\n").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.rest().await, r":3\r\n:4\r\n");
}

#[tokio::test]
async fn a_stopping_gateway_closes_its_connections() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.check("PING", "+PONG\r\n").await;
    server.stop.send(true);
    assert_eq!(client.rest().await, "");
    server.task.await.unwrap();
    assert_eq!(server.metrics.connections_open(), 0);
}
