//! What a node tells about itself and its connections.

use redis_protocol::resp2::types::OwnedFrame;

use crate::support::{Client, Server, converse};

const SYNTAX: &str = "-ERR syntax error\r\n";

async fn text(client: &mut Client, line: &str) -> String {
    match client.ask(line).await {
        OwnedFrame::BulkString(text) => String::from_utf8(text).unwrap(),
        other => panic!("{line}: {other:?}"),
    }
}

/// The value of a field in a line of `CLIENT LIST`.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let pair = line.split(' ').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    pair.unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[tokio::test]
async fn client_list_shows_every_connection_of_the_node() {
    let server = Server::start().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    converse(&mut first, &[("CLIENT SETNAME one", "+OK\r\n"), ("MULTI", "+OK\r\n")]).await;
    first.check("GET a", "+QUEUED\r\n").await;
    let list = text(&mut second, "CLIENT LIST").await;
    let lines: Vec<&str> = list.lines().collect();
    let [one, two] = lines[..] else { panic!("{list}") };
    let local = first.stream.local_addr().unwrap().to_string();
    let expected = [
        ("id", "1"),
        ("addr", &local),
        ("laddr", &server.address.to_string()),
        ("name", "one"),
        ("flags", "x"),
        ("multi", "1"),
        ("db", "0"),
        ("cmd", "get"),
        ("user", "default"),
        ("resp", "2"),
    ];
    for (name, value) in expected {
        assert_eq!(field(one, name), value, "{one}");
    }
    assert!(field(one, "age").parse::<u64>().is_ok() && field(one, "idle").parse::<u64>().is_ok());
    for (name, value) in [("id", "2"), ("name", ""), ("multi", "-1"), ("cmd", "client|list")] {
        assert_eq!(field(two, name), value, "{two}");
    }
    assert_eq!(text(&mut second, "CLIENT LIST ID 1 7").await.lines().count(), 1);
    assert_eq!(text(&mut second, "CLIENT LIST TYPE normal").await.lines().count(), 2);
    assert_eq!(text(&mut second, "CLIENT LIST TYPE pubsub").await, "");
    assert_eq!(field(&text(&mut second, "CLIENT INFO").await, "cmd"), "client|info");

    // Who leaves is not listed any more.
    first.send("QUIT\r\n").await;
    first.rest().await;
    drop(first);
    while text(&mut second, "CLIENT LIST").await.lines().count() > 1 {}
}

#[tokio::test]
async fn client_kill_ends_those_that_are_meant() {
    let server = Server::start().await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    let mut third = server.client().await;
    for client in [&mut first, &mut second, &mut third] {
        client.check("PING", "+PONG\r\n").await;
    }
    converse(
        &mut first,
        &[
            ("CLIENT KILL ID 99", ":0\r\n"),
            ("CLIENT KILL 127.0.0.1:1", "-ERR No such client\r\n"),
            ("CLIENT KILL ID x", "-ERR client-id should be greater than 0\r\n"),
            ("CLIENT KILL FOO 1", SYNTAX),
            ("CLIENT KILL ID 2 ADDR", SYNTAX),
            ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n"),
            ("CLIENT KILL TYPE pubsub", ":0\r\n"),
            ("CLIENT KILL ID 1", ":0\r\n"),
            ("CLIENT KILL ID 2", ":1\r\n"),
        ],
    )
    .await;
    assert_eq!(second.rest().await, "");
    let address = third.stream.local_addr().unwrap();
    first.check(&format!("CLIENT KILL {address}"), "+OK\r\n").await;
    assert_eq!(third.rest().await, "");
    // One's own connection ends after the answer.
    first.send("CLIENT KILL TYPE normal SKIPME no\r\nPING\r\n").await;
    assert_eq!(first.rest().await, r":1\r\n");
}

#[tokio::test]
async fn what_there_is_not_is_refused_by_name() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("CLIENT NO-EVICT on", "+OK\r\n"),
            ("CLIENT NO-EVICT x", SYNTAX),
            ("CLIENT NO-TOUCH OFF", "+OK\r\n"),
            ("CLIENT GETREDIR", ":-1\r\n"),
            ("CLIENT TRACKING off", "+OK\r\n"),
            ("CLIENT TRACKING on", "-ERR CLIENT TRACKING is not supported\r\n"),
            ("CLIENT PAUSE 1", "-ERR CLIENT PAUSE is not supported\r\n"),
            ("CLIENT REPLY on", "+OK\r\n"),
            (
                "CLIENT REPLY OFF",
                "-ERR CLIENT REPLY OFF and SKIP are not supported: every command is answered\r\n",
            ),
            ("CLIENT REPLY x", SYNTAX),
            ("CLIENT LIST x", SYNTAX),
            ("CLIENT LIST TYPE x", "-ERR Unknown client type 'x'\r\n"),
            ("CLIENT LIST ID x", "-ERR Invalid client ID\r\n"),
            ("CLIENT ID 3", "-ERR wrong number of arguments for 'client|id' command\r\n"),
            ("CLIENT KILL", "-ERR wrong number of arguments for 'client|kill' command\r\n"),
            ("CLIENT", "-ERR wrong number of arguments for 'client' command\r\n"),
            ("CLIENT NONSENSE", "-ERR unknown subcommand 'NONSENSE'. Try CLIENT HELP.\r\n"),
        ],
    )
    .await;
    let mut client = server.client().await;
    for command in ["CLIENT", "CLUSTER", "COMMAND", "CONFIG"] {
        let OwnedFrame::Array(lines) = client.ask(&format!("{command} HELP")).await else {
            panic!("help is lines");
        };
        let OwnedFrame::SimpleString(first) = &lines[0] else { panic!("{lines:?}") };
        assert!(first.starts_with(command.as_bytes()) && lines.len() > 3, "{lines:?}");
    }
}

#[tokio::test]
async fn info_answers_the_sections_that_are_asked_for() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let titles = |info: &str| -> Vec<String> {
        info.lines().filter_map(|line| line.strip_prefix("# ")).map(str::to_owned).collect()
    };
    let all = text(&mut client, "INFO").await;
    for field in ["redis_version:", "arch_bits:", "cluster_enabled:0", "tcp_port:6401"] {
        assert!(all.contains(field), "{field}");
    }
    let every = ["Server", "Clients", "Persistence", "Stats", "Replication", "Cluster"];
    for asked in ["INFO", "INFO all", "INFO everything", "INFO default", "INFO clients ALL"] {
        assert_eq!(titles(&text(&mut client, asked).await), every, "{asked}");
    }
    assert_eq!(titles(&text(&mut client, "INFO server").await), ["Server"]);
    assert_eq!(titles(&text(&mut client, "INFO Stats SERVER").await), ["Server", "Stats"]);
    assert_eq!(text(&mut client, "INFO keyspace").await, "");
    assert_eq!(text(&mut client, "INFO replication").await, "# Replication\r\nrole:master\r\n");
}
