//! Every command and its replies, byte for byte.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use crate::support::{Server, converse, encode, names};

const NOT_INTEGER: &str = "-ERR value is not an integer or out of range\r\n";
const SYNTAX: &str = "-ERR syntax error\r\n";

#[tokio::test]
async fn strings_are_read_and_written() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("GET a", "$-1\r\n"),
            ("SET a 1", "+OK\r\n"),
            ("get a", "$1\r\n1\r\n"),
            ("SET a 2 NX", "$-1\r\n"),
            ("SET a 2 XX", "+OK\r\n"),
            ("SET b 1 XX", "$-1\r\n"),
            ("SET b 1 NX", "+OK\r\n"),
            ("SET b 2 GET", "$1\r\n1\r\n"),
            ("SET b 3 NX GET", "$1\r\n2\r\n"),
            ("SET c 3 XX GET", "$-1\r\n"),
            ("GET c", "$-1\r\n"),
            ("SET a 1 NX XX", SYNTAX),
            ("SET a 1 EX", SYNTAX),
            ("SET a 1 EX 1 PX 1", SYNTAX),
            ("SET a 1 EX x", NOT_INTEGER),
            ("SET a 1 EX 0", "-ERR invalid expire time in 'set' command\r\n"),
            ("SETNX a 9", ":0\r\n"),
            ("SETNX d 9", ":1\r\n"),
            ("GETSET d 8", "$1\r\n9\r\n"),
            ("GETSET e 8", "$-1\r\n"),
            ("GETDEL d", "$1\r\n8\r\n"),
            ("GETDEL d", "$-1\r\n"),
            ("APPEND e yz", ":3\r\n"),
            ("APPEND new xyz", ":3\r\n"),
            ("GET e", "$3\r\n8yz\r\n"),
            ("STRLEN e", ":3\r\n"),
            ("STRLEN none", ":0\r\n"),
            ("TYPE e", "+string\r\n"),
            ("TYPE none", "+none\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn several_keys_are_one_command() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("MSET a 1 b 2 a 3", "+OK\r\n"),
            ("MGET a b c", "*3\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n"),
            ("MSETNX c 1 a 9", ":0\r\n"),
            ("EXISTS c", ":0\r\n"),
            ("MSETNX c 1 d 9", ":1\r\n"),
            ("EXISTS a a b none", ":3\r\n"),
            ("TOUCH a none", ":1\r\n"),
            ("DEL a a none", ":1\r\n"),
            ("UNLINK b c", ":2\r\n"),
            ("DBSIZE", ":1\r\n"),
            ("FLUSHALL", "+OK\r\n"),
            ("DBSIZE", ":0\r\n"),
            ("FLUSHDB ASYNC", "+OK\r\n"),
            ("FLUSHALL NOW", SYNTAX),
            ("MSET a", "-ERR wrong number of arguments for 'mset' command\r\n"),
            ("MSET a 1 b", "-ERR wrong number of arguments for 'mset' command\r\n"),
        ],
    )
    .await;
}

/// Taken apart, they would not be atomic across shards.
#[tokio::test]
async fn a_command_over_many_keys_is_one_transaction() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let commands = [
        ("MSET a 1 b 2 c 3", "+OK\r\n"),
        ("MGET a b c", "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n"),
        ("MSETNX c 1 d 2", ":0\r\n"),
        ("EXISTS a b c d", ":3\r\n"),
        ("DEL a b", ":2\r\n"),
    ];
    for (at, command) in (1..).zip(commands) {
        converse(&mut client, &[command]).await;
        assert_eq!(server.backend.calls.load(Ordering::SeqCst), at, "{}", command.0);
    }
    converse(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a 5", "+QUEUED\r\n"),
            ("INCR c", "+QUEUED\r\n"),
            ("MGET a c", "+QUEUED\r\n"),
            ("EXEC", "*3\r\n+OK\r\n:4\r\n*2\r\n$1\r\n5\r\n$1\r\n4\r\n"),
        ],
    )
    .await;
    assert_eq!(server.backend.calls.load(Ordering::SeqCst), 6, "EXEC");
}

#[tokio::test]
async fn numbers_are_counted() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("INCR n", ":1\r\n"),
            ("INCRBY n 41", ":42\r\n"),
            ("DECR n", ":41\r\n"),
            ("DECRBY n 50", ":-9\r\n"),
            ("INCRBY n x", NOT_INTEGER),
            ("SET s abc", "+OK\r\n"),
            ("INCR s", NOT_INTEGER),
            ("SET s 9223372036854775807", "+OK\r\n"),
            ("INCR s", "-ERR increment or decrement would overflow\r\n"),
            ("SET s -9223372036854775808", "+OK\r\n"),
            ("DECR s", "-ERR increment or decrement would overflow\r\n"),
            ("DECRBY s -9223372036854775808", "-ERR decrement would overflow\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn values_expire_by_the_clock_of_the_log() {
    let server = Server::start().await;
    let mut client = server.client().await;
    converse(
        &mut client,
        &[
            ("SET a 1 EX 10", "+OK\r\n"),
            ("TTL a", ":10\r\n"),
            ("PTTL a", ":10000\r\n"),
            ("EXPIRETIME a", ":1010\r\n"),
            ("PEXPIRETIME a", ":1010000\r\n"),
            ("TTL none", ":-2\r\n"),
            ("INCR a", ":2\r\n"),
            ("SET a 3 KEEPTTL", "+OK\r\n"),
            ("TTL a", ":10\r\n"),
            ("EXPIRE a 20 NX", ":0\r\n"),
            ("EXPIRE a 5 GT", ":0\r\n"),
            ("EXPIRE a 20 GT", ":1\r\n"),
            ("EXPIRE a 15 LT", ":1\r\n"),
            (
                "EXPIRE a 15 NX XX",
                "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n",
            ),
            ("EXPIRE a 15 ZZ", "-ERR Unsupported option ZZ\r\n"),
            ("EXPIRE a 14 XX LT", ":1\r\n"),
            ("EXPIRE d 14 XX LT", ":0\r\n"),
            ("EXPIRE a 14 XX GT", ":0\r\n"),
            ("EXPIRE a 15 GT LT", "-ERR GT and LT options at the same time are not compatible\r\n"),
            ("PERSIST a", ":1\r\n"),
            ("PERSIST a", ":0\r\n"),
            ("TTL a", ":-1\r\n"),
            ("PSETEX b 1500 x", "+OK\r\n"),
            ("SETEX c 2 x", "+OK\r\n"),
            ("SETEX c 0 x", "-ERR invalid expire time in 'setex' command\r\n"),
            ("TTL b", ":2\r\n"),
            ("PEXPIREAT a 1002000", ":1\r\n"),
        ],
    )
    .await;
    server.backend.advance(1_500);
    converse(&mut client, &[("GET b", "$-1\r\n"), ("MGET a c", "*2\r\n$1\r\n3\r\n$1\r\nx\r\n")])
        .await;
    server.backend.advance(500);
    converse(
        &mut client,
        &[
            ("EXISTS a b c", ":0\r\n"),
            ("DBSIZE", ":0\r\n"),
            ("SET d 1", "+OK\r\n"),
            ("EXPIRE d -1", ":1\r\n"),
            ("EXISTS d", ":0\r\n"),
            ("EXPIRE none 5", ":0\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn keys_and_values_are_binary() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let key: &[u8] = b"\0\r\n\xff";
    client.send(encode(&[b"SET", key, b"\r\n$-1\r\n"])).await;
    client.expect("+OK\r\n").await;
    client.send(encode(&[b"GET", key])).await;
    client.expect("$7\r\n\r\n$-1\r\n\r\n").await;
    client.send(encode(&["SET", "", "empty"])).await;
    client.expect("+OK\r\n").await;
    client.send(encode(&["GET", ""])).await;
    client.expect("$5\r\nempty\r\n").await;
}

#[tokio::test]
async fn keys_finds_by_pattern_within_its_limit() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.check("MSET user:1 a user:2 b other c", "+OK\r\n").await;
    assert_eq!(names(client.ask("KEYS user:?").await), set(["user:1", "user:2"]));
    assert_eq!(names(client.ask("KEYS *").await).len(), 3);
    client.check("KEYS nothing*", "*0\r\n").await;

    let mut words = vec!["MSET".to_owned()];
    words.extend((0..10_001).flat_map(|i| [format!("k{i}"), String::new()]));
    client.send(encode(&words)).await;
    client.expect("+OK\r\n").await;
    client
        .check(
            "KEYS *",
            "-ERR more than 10000 keys match or their names are too long; use SCAN\r\n",
        )
        .await;
    assert_eq!(names(client.ask("KEYS user:*").await).len(), 2);
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn the_session_answers_for_itself() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("PING", "+PONG\r\n"),
            ("PING hi", "$2\r\nhi\r\n"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
            ("ECHO hi", "$2\r\nhi\r\n"),
            ("SELECT 0", "+OK\r\n"),
            ("SELECT 1", "-ERR DB index is out of range\r\n"),
            ("SELECT x", NOT_INTEGER),
            ("AUTH default x", "+OK\r\n"),
            ("AUTH nobody x", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
            ("CLIENT GETNAME", "$-1\r\n"),
            ("CLIENT SETNAME me", "+OK\r\n"),
            ("CLIENT GETNAME", "$2\r\nme\r\n"),
            ("CLIENT SETINFO LIB-NAME x", "+OK\r\n"),
            ("CLIENT ID", ":1\r\n"),
            ("CLUSTER KEYSLOT foo", ":12182\r\n"),
            ("CLUSTER SLOTS", "-ERR This instance has cluster support disabled\r\n"),
            ("READONLY", "+OK\r\n"),
            ("CONFIG GET save", "*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
            ("CONFIG GET append*", "*2\r\n$10\r\nappendonly\r\n$3\r\nyes\r\n"),
            ("COMMAND COUNT", ":55\r\n"),
            ("COMMAND INFO nosuch", "*1\r\n*-1\r\n"),
            ("RESET", "+RESET\r\n"),
            ("CLIENT GETNAME", "$-1\r\n"),
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("nosuch a b", "-ERR unknown command 'nosuch', with args beginning with: 'a' 'b' \r\n"),
        ],
    )
    .await;
    let mut client = server.client().await;
    client.say("QUIT").await;
    assert_eq!(client.rest().await, r"+OK\r\n");
}

#[tokio::test]
async fn resp3_changes_what_nothing_looks_like() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.say("HELLO 3").await;
    client.expect("%7\r\n$6\r\nserver\r\n$7\r\nquorate\r\n").await;
    client.expect("$7\r\nversion\r\n$5\r\n7.0.0\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1\r\n").await;
    client.expect("$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n").await;
    client.expect("$7\r\nmodules\r\n*0\r\n").await;
    converse(
        &mut client,
        &[
            ("GET none", "_\r\n"),
            ("CONFIG GET save", "%1\r\n$4\r\nsave\r\n$0\r\n\r\n"),
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("HELLO x", "-ERR Protocol version is not an integer or out of range\r\n"),
            ("HELLO 3 NONSENSE", "-ERR Syntax error in HELLO option 'NONSENSE'\r\n"),
            ("GET none", "_\r\n"),
            ("RESET", "+RESET\r\n"),
            ("GET none", "$-1\r\n"),
        ],
    )
    .await;
    // The protocol of a reply is the one at its command's turn.
    client
        .send("GET none\r\nHELLO 3 SETNAME me AUTH default x\r\nGET none\r\nCLIENT GETNAME\r\n")
        .await;
    client.expect("$-1\r\n%7\r\n").await;
    let rest = client_rest_until(&mut client, "_\r\n$2\r\nme\r\n").await;
    assert!(rest.contains("proto"));
}

async fn client_rest_until(client: &mut crate::support::Client, end: &str) -> String {
    client.send("QUIT\r\n").await;
    let rest = client.rest().await;
    let expected = format!("{end}+OK\r\n").as_bytes().escape_ascii().to_string();
    assert!(rest.ends_with(&expected), "{rest}");
    rest
}

#[tokio::test]
async fn a_node_that_does_not_serve_says_so() {
    let server = Server::start().await;
    let mut client = server.client().await;
    server.backend.serving.store(false, Ordering::Relaxed);
    const LOADING: &str = "-LOADING this node does not serve yet, retry\r\n";
    converse(
        &mut client,
        &[
            ("GET a", LOADING),
            ("SCAN 0", LOADING),
            ("PING", LOADING),
            ("ECHO a", LOADING),
            ("SELECT 0", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("EXEC", LOADING),
        ],
    )
    .await;
    server.backend.serving.store(true, Ordering::Relaxed);
    client.check("GET a", "$-1\r\n").await;
}
