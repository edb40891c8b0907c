//! The same commands to this server and to Redis: to one that was recorded,
//! and to a real one, where one is installed.
//!
//! The recording is checked always. It is made from a real Redis by
//! `QUORATE_RECORD=1 cargo test -p quorate-server replies_are_those`.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use quorate_types::env::{Rng, SplitMix};
use redis_protocol::resp2::types::OwnedFrame;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::support::{Client, Server, encode};

/// What is recorded: enough for every template, little enough to read.
const RECORDED_SEEDS: u64 = 4;
const RECORDED_COMMANDS: usize = 120;
const LIVE_SEEDS: u64 = 20;
const LIVE_COMMANDS: usize = 500;

/// The only generation of Redis to compare with: others word errors in other
/// ways. As `redis-server --version` says it.
const VERSION: &str = "v=7.";

/// Commands that chance would hardly bring about.
const SCRIPT: &[&str] = &[
    "SET a 1 EX 9223372036854775807",
    "SET a 1 PX 9223372036854775807",
    "SET a 1 EXAT 9223372036854775807",
    "SET a 1 PXAT 9223372036854775807",
    "TYPE a",
    "SET a 1 EX -1",
    "SET a 1 PXAT 0",
    "SET a 1 EX x",
    "SET a 1 EX 9223372036854775807 PX",
    "SET a 1 EX x NX XX",
    "SETEX a 9223372036854775 x",
    "SETEX a x x",
    "PSETEX a 9223372036854775807 x",
    "PSETEX a -1 x",
    "SET a 1",
    "EXPIRE a 9223372036854775807",
    "EXPIRE a -9223372036854775807",
    "EXPIRE none 9223372036854775807",
    "PEXPIRE a 9223372036854775807",
    "EXPIREAT a 9223372036854775807",
    "EXPIREAT a -9223372036854775808",
    "EXPIRE a x ZZ",
    "EXPIRE a x",
    "EXPIRE a 9223372036854775807 NX XX",
    "EXPIRE a 10 NX GT",
    "EXPIRE a 10 GT LT",
    "EXPIRE a 10 NX GT LT",
    "EXPIRE a 10 XX GT",
    "EXPIRE a 10 XX LT",
    "EXPIRE a 10 NX NX",
    "EXPIRE a 9 XX LT",
    "EXPIRE a 8 XX GT",
    "EXPIRE a 20 XX GT",
    "PERSIST a",
    "PEXPIREAT a 9223372036854775807",
    "PERSIST a",
    "PEXPIRE a -9223372036854775808",
    "EXISTS a",
    "CLIENT",
    "CLIENT NONSENSE",
    "CLIENT ID 3",
    "CLIENT SETNAME",
    "CLIENT SETNAME me",
    "CLIENT GETNAME",
    "CLIENT NO-EVICT x",
    "CLIENT NO-EVICT on",
    "CLIENT GETREDIR",
    "CLIENT REPLY ON",
    "CLIENT REPLY x",
    "CLIENT KILL",
    "CLIENT KILL a b c",
    "CLIENT KILL x y",
    "CLIENT KILL ID x",
    "CLIENT KILL ID 999999",
    "CLIENT KILL 1.2.3.4:5",
    "CLIENT KILL ADDR 1.2.3.4:5",
    "CLIENT KILL TYPE x",
    "CLIENT LIST x",
    "CLIENT LIST ID",
    "CLIENT LIST ID x",
    "CLIENT LIST TYPE x",
    "CLIENT LIST TYPE pubsub",
    "INFO nosuchsection",
    "SCAN 0 COUNT -1",
    "SCAN 0 x",
    "SCAN 0 x y",
    "SCAN x",
    "MULTI",
    "HELLO 4",
    "HELLO 3 x",
    "SCAN x",
    "SET a 1 EX",
    "SET a",
    "EXEC",
    "MULTI",
    "HELLO 4",
    "HELLO 3 x",
    "SCAN x",
    "SET a 1 EX",
    "SET a 1",
    "EXEC",
    "GET a",
    "RESET",
];

/// A Redis of the right generation, where one is installed.
async fn redis() -> Option<(Child, Client)> {
    let version = Command::new("redis-server").arg("--version").output().await.ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains(VERSION) {
        return None;
    }
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let child = Command::new("redis-server")
        .args(["--port", &free.port().to_string(), "--save", "", "--appendonly", "no"])
        .args(["--bind", "127.0.0.1"])
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    while TcpStream::connect(free).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Some((child, Client::connect(free).await))
}

/// Their clock runs and ours stands, so nothing here may turn on a moment: a
/// life is compared only with one that is seconds longer or shorter.
fn random_command(chance: &mut SplitMix) -> Vec<String> {
    let mut below = |n: u64| chance.next_u64() % n;
    let key = format!("k{}", below(4));
    let other = format!("k{}", below(4));
    let value = ["1", "9223372036854775807", "abc", "", "-5", "007"][below(6) as usize].to_owned();
    let templates: &[&[&str]] = &[
        &["GET", "K"],
        &["SET", "K", "V"],
        &["SET", "K", "V", "NX"],
        &["SET", "K", "V", "XX", "GET"],
        &["SET", "K", "V", "KEEPTTL"],
        &["SET", "K", "V", "EX", "100"],
        &["SET", "K", "V", "EX", "0"],
        &["SET", "K", "V", "EX", "x"],
        &["SET", "K", "V", "NX", "XX"],
        &["SETNX", "K", "V"],
        &["SETEX", "K", "9223372036854775807", "V"],
        &["GETSET", "K", "V"],
        &["GETDEL", "K"],
        &["MGET", "K", "O"],
        &["MSET", "K", "V", "O", "V"],
        &["MSETNX", "K", "V", "O", "V"],
        &["MSET", "K"],
        &["DEL", "K", "O"],
        &["EXISTS", "K", "O", "K"],
        &["INCR", "K"],
        &["DECR", "K"],
        &["INCRBY", "K", "V"],
        &["DECRBY", "K", "V"],
        &["APPEND", "K", "V"],
        &["STRLEN", "K"],
        &["TYPE", "K"],
        &["DBSIZE"],
        &["TTL", "K"],
        &["EXPIRE", "K", "50", "GT"],
        &["EXPIRE", "K", "150", "XX", "LT"],
        &["EXPIRE", "K", "9223372036854775807"],
        &["PERSIST", "K"],
        &["EXPIRE", "K", "100"],
        &["GET"],
        &["MULTI"],
        &["EXEC"],
        &["EXEC"],
        &["DISCARD"],
        &["WATCH", "K"],
        &["UNWATCH"],
        &["PING"],
        &["ECHO", "V"],
        &["SELECT", "0"],
        &["SELECT", "x"],
        &["KEYS", "K"],
        &["FLUSHALL"],
    ];
    let template = templates[below(templates.len() as u64) as usize];
    let fill = |word: &&str| match *word {
        "K" => key.clone(),
        "O" => other.clone(),
        "V" => value.clone(),
        other => other.to_owned(),
    };
    template.iter().map(fill).collect()
}

/// Conversations, each to be held on a database without keys.
fn conversations(seeds: u64, commands: usize) -> Vec<Vec<Vec<String>>> {
    let split = |line: &&str| line.split(' ').map(str::to_owned).collect();
    let mut all: Vec<Vec<Vec<String>>> = vec![SCRIPT.iter().map(split).collect()];
    all.extend((0..seeds).map(|seed| {
        let mut chance = SplitMix::new(seed);
        (0..commands).map(|_| random_command(&mut chance)).collect()
    }));
    all
}

/// Back to a session without a transaction and a database without keys.
async fn clear(client: &mut Client) {
    for end in ["RESET", "FLUSHALL"] {
        client.ask(end).await;
    }
}

async fn ask(client: &mut Client, words: &[String]) -> OwnedFrame {
    client.send(encode(words)).await;
    client.reply().await
}

/// Said whether or not the test fails: around the harness of `cargo test`, which
/// would keep it for a failure. What nextest keeps it shows in the end, by the
/// `success-output` of this test.
fn say(text: &str) {
    let mut around = std::io::stderr();
    writeln!(around, "{text}").unwrap();
}

#[tokio::test]
async fn replies_are_those_of_a_redis_on_this_machine() {
    let Some((_child, mut theirs)) = redis().await else {
        say("NOT RUN: the comparison with a live Redis; there is no redis-server 7 here");
        return;
    };
    let server = Server::start().await;
    let mut ours = server.client().await;
    for (number, conversation) in conversations(LIVE_SEEDS, LIVE_COMMANDS).iter().enumerate() {
        for (at, command) in conversation.iter().enumerate() {
            let (our, their) = (ask(&mut ours, command).await, ask(&mut theirs, command).await);
            let before = &conversation[at.saturating_sub(12)..=at];
            assert_eq!(our, their, "conversation {number}: {before:#?}");
        }
        clear(&mut ours).await;
        clear(&mut theirs).await;
    }
}

fn recording() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/server/redis-7.0.txt")
}

/// A reply on one line, as one would write it down.
fn show(reply: &OwnedFrame, out: &mut String) {
    let escape = |bytes: &[u8]| bytes.escape_ascii().to_string();
    match reply {
        OwnedFrame::SimpleString(text) => write!(out, "+{}", escape(text)).unwrap(),
        OwnedFrame::Error(text) => write!(out, "-{text}").unwrap(),
        OwnedFrame::Integer(number) => write!(out, ":{number}").unwrap(),
        OwnedFrame::BulkString(text) => write!(out, "\"{}\"", escape(text)).unwrap(),
        OwnedFrame::Null => out.push_str("null"),
        OwnedFrame::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                show(item, out);
            }
            out.push(']');
        }
    }
}

/// What a server answers, line by line: a command with its words in quotes
/// where they are empty, a tabulator, the reply. Conversations are apart by an
/// empty line.
async fn transcript(client: &mut Client) -> String {
    let mut text = String::new();
    for conversation in conversations(RECORDED_SEEDS, RECORDED_COMMANDS) {
        for command in &conversation {
            let words: Vec<&str> =
                command.iter().map(|word| if word.is_empty() { "''" } else { word }).collect();
            write!(text, "{}\t", words.join(" ")).unwrap();
            show(&ask(client, command).await, &mut text);
            text.push('\n');
        }
        text.push('\n');
        clear(client).await;
    }
    text
}

#[tokio::test]
async fn replies_are_those_that_were_recorded() {
    if std::env::var_os("QUORATE_RECORD").is_some() {
        let (_child, mut theirs) = redis().await.expect("recording needs a redis-server");
        std::fs::write(recording(), transcript(&mut theirs).await).unwrap();
    }
    let recorded = std::fs::read_to_string(recording()).unwrap();
    assert!(recorded.lines().count() > 400, "the recording is not whole");
    let server = Server::start().await;
    let ours = transcript(&mut server.client().await).await;
    for (number, (our, their)) in ours.lines().zip(recorded.lines()).enumerate() {
        assert_eq!(our, their, "line {} of the recording", number + 1);
    }
    assert_eq!(ours.lines().count(), recorded.lines().count());
}
