//! The same random commands to this server and to a real Redis, where one is
//! installed.

use std::process::Stdio;
use std::time::Duration;

use quorate_types::env::{Rng, SplitMix};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::support::{Client, Server, encode};

async fn redis() -> Option<(Child, Client)> {
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
        &["SET", "K", "V", "NX", "XX"],
        &["SETNX", "K", "V"],
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
        &["EXPIRE", "K", "200", "GT"],
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

#[tokio::test]
async fn replies_are_those_of_redis() {
    let Some((_child, mut theirs)) = redis().await else {
        println!("skipped: there is no redis-server on this machine");
        return;
    };
    let server = Server::start().await;
    let mut ours = server.client().await;
    for seed in 0..20 {
        let mut chance = SplitMix::new(seed);
        let mut history = Vec::new();
        for _ in 0..500 {
            let command = random_command(&mut chance);
            history.push(command.join(" "));
            ours.send(encode(&command)).await;
            theirs.send(encode(&command)).await;
            let (our_reply, their_reply) = (ours.reply().await, theirs.reply().await);
            let tail = &history[history.len().saturating_sub(12)..];
            assert_eq!(our_reply, their_reply, "seed {seed}: {tail:#?}");
        }
        for end in ["DISCARD", "UNWATCH", "FLUSHALL"] {
            ours.ask(end).await;
            theirs.ask(end).await;
        }
    }
}
