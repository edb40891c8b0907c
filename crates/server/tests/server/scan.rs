//! `SCAN` over pages, shards and splits.

use std::collections::BTreeSet;

use quorate_server::{partition_key, slot_start};
use redis_protocol::resp2::types::OwnedFrame;

use crate::memory::Listing;
use crate::support::{Client, Server, converse, encode, names};

#[tokio::test]
async fn scan_returns_every_key_and_ends() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let mut expected = BTreeSet::new();
    let mut words = vec!["MSET".to_owned()];
    for i in 0..300 {
        // Most in one slot, so that a slot has to be returned in portions.
        let key = if i % 3 == 0 { format!("k{i}") } else { format!("{{tag}}{i}") };
        words.extend([key.clone(), "v".to_owned()]);
        expected.insert(key);
    }
    words.extend([String::new(), "the empty key".to_owned()]);
    expected.insert(String::new());
    client.send(encode(&words)).await;
    client.expect("+OK\r\n").await;

    for options in ["", " COUNT 1", " COUNT 1000", " TYPE string"] {
        assert_eq!(scan_all(&mut client, options).await, expected, "{options}");
    }
    let odd = scan_all(&mut client, " MATCH {tag}*1").await;
    assert_eq!(
        odd.len(),
        expected.iter().filter(|k| k.starts_with('{') && k.ends_with('1')).count()
    );
    assert!(scan_all(&mut client, " TYPE list").await.is_empty());
    converse(
        &mut client,
        &[
            ("SCAN x", "-ERR invalid cursor\r\n"),
            ("SCAN 0 COUNT 0", "-ERR syntax error\r\n"),
            ("SCAN 0 COUNT x", "-ERR value is not an integer or out of range\r\n"),
            ("SCAN 0 MATCH", "-ERR syntax error\r\n"),
            ("SCAN 18446744073709551615", "*2\r\n$1\r\n0\r\n*0\r\n"),
        ],
    )
    .await;
}

async fn scan_all(client: &mut Client, options: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    loop {
        let (next, keys) = page(client, &format!("SCAN {cursor}{options}")).await;
        found.extend(keys);
        cursor = next;
        if cursor == "0" {
            return found;
        }
    }
}

/// Keys of every kind, stored: many slots, one slot of many, the empty key.
async fn fill(client: &mut Client) -> BTreeSet<String> {
    let tagged = (0..100).map(|number| format!("{{tag}}{number}"));
    let plain = (0..100).map(|number| format!("k{number}"));
    let keys: BTreeSet<String> = tagged.chain(plain).chain([String::new()]).collect();
    let words = keys.iter().flat_map(|key| [key.clone(), "v".to_owned()]);
    let words: Vec<String> = std::iter::once("MSET".to_owned()).chain(words).collect();
    client.send(encode(&words)).await;
    client.expect("+OK\r\n").await;
    keys
}

/// Shards are cut between slots, as for three of them, and inside of a slot,
/// as by a split at a key: right before, at and after a stored key.
#[tokio::test]
async fn scan_goes_on_behind_every_border_of_a_shard() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let expected = fill(&mut client).await;
    let stored = |key: &str| partition_key(key.as_bytes());
    let mut borders = vec![slot_start(5_461), slot_start(10_922)];
    borders.extend(["{tag}5", "{tag}50", "k7", "k8"].map(stored));
    borders.push(stored("{tag}7\u{0}"));
    borders.push(stored("k9\u{0}"));
    *server.backend.borders.lock() = borders;
    for options in ["", " COUNT 1", " COUNT 1000"] {
        assert_eq!(scan_all(&mut client, options).await, expected, "{options}");
    }
}

#[tokio::test]
async fn a_cursor_outlives_splits() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let expected = fill(&mut client).await;
    let mut found = BTreeSet::new();
    let mut cursor = "0".to_owned();
    let mut splits = expected.iter().map(|key| partition_key(key.as_bytes()));
    loop {
        let (next, keys) = page(&mut client, &format!("SCAN {cursor} COUNT 3")).await;
        found.extend(keys);
        server.backend.borders.lock().extend(splits.by_ref().take(2));
        if next == "0" {
            break;
        }
        cursor = next;
    }
    assert_eq!(found, expected);
}

async fn page(client: &mut Client, line: &str) -> (String, BTreeSet<String>) {
    let OwnedFrame::Array(parts) = client.ask(line).await else { panic!("SCAN answers a pair") };
    let [OwnedFrame::BulkString(next), keys] = &parts[..] else { panic!("a cursor and keys") };
    (String::from_utf8(next.clone()).unwrap(), names(keys.clone()))
}

#[tokio::test(start_paused = true)]
async fn a_scan_that_nobody_serves_ends_at_its_deadline() {
    let server = Server::start().await;
    *server.backend.listing.lock() = Listing::Silent;
    let expected = "-REFUSED not executed: listing the keys takes too long, retry\r\n";
    server.client().await.check("SCAN 0", expected).await;
}

/// The clock stands still, because there is always something to do: only the
/// client's end can end this.
#[tokio::test(start_paused = true)]
async fn a_client_that_ends_takes_its_scan_along() {
    let server = Server::start().await;
    *server.backend.listing.lock() = Listing::Endless;
    let mut client = server.client().await;
    client.say("SCAN 0").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.unwrap();
    assert_eq!(client.rest().await, r"-REFUSED not executed: the connection ends, retry\r\n");

    let mut client = server.client().await;
    client.say("SCAN 0").await;
    drop(client);
    while server.metrics.connections_open() > 0 {
        tokio::task::yield_now().await;
    }
}
