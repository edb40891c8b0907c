//! MULTI, EXEC, WATCH.

use crate::memory::Fault;
use crate::support::{Server, converse};

const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";

#[tokio::test]
async fn exec_answers_for_every_command_and_errors_stop_nobody() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a x", "+QUEUED\r\n"),
            ("INCR a", "+QUEUED\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("SET b 2", "+QUEUED\r\n"),
            ("GET a", "+QUEUED\r\n"),
            ("DBSIZE", "+QUEUED\r\n"),
            (
                "EXEC",
                "*6\r\n+OK\r\n-ERR value is not an integer or out of range\r\n+PONG\r\n+OK\r\n$1\r\nx\r\n:2\r\n",
            ),
            ("MGET a b", "*2\r\n$1\r\nx\r\n$1\r\n2\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn counts_see_what_the_transaction_did_before() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("MSET a 1 b 2", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET a 3", "+QUEUED\r\n"),
            ("SET c 3", "+QUEUED\r\n"),
            ("DEL b", "+QUEUED\r\n"),
            ("DBSIZE", "+QUEUED\r\n"),
            ("KEYS c", "+QUEUED\r\n"),
            ("KEYS b", "+QUEUED\r\n"),
            ("FLUSHALL", "+QUEUED\r\n"),
            ("DBSIZE", "+QUEUED\r\n"),
            ("SET d 1", "+QUEUED\r\n"),
            ("KEYS *", "+QUEUED\r\n"),
            (
                "EXEC",
                "*10\r\n+OK\r\n+OK\r\n:1\r\n:2\r\n*1\r\n$1\r\nc\r\n*0\r\n+OK\r\n:0\r\n+OK\r\n*1\r\n$1\r\nd\r\n",
            ),
            ("KEYS *", "*1\r\n$1\r\nd\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn misuse_is_answered_as_redis_does() {
    let server = Server::start().await;
    converse(
        &mut server.client().await,
        &[
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
            ("DISCARD", "-ERR DISCARD without MULTI\r\n"),
            ("MULTI", "+OK\r\n"),
            ("MULTI", "-ERR MULTI calls can not be nested\r\n"),
            ("WATCH a", "-ERR WATCH inside MULTI is not allowed\r\n"),
            ("EXEC", "*0\r\n"),
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("GET", "-ERR wrong number of arguments for 'get' command\r\n"),
            ("SET a 2", "+QUEUED\r\n"),
            ("EXEC", ABORTED),
            ("MULTI", "+OK\r\n"),
            ("NOSUCH", "-ERR unknown command 'NOSUCH', with args beginning with: \r\n"),
            ("EXEC", ABORTED),
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("DISCARD", "+OK\r\n"),
            ("GET a", "$-1\r\n"),
            ("MULTI", "+OK\r\n"),
            ("RESET", "+RESET\r\n"),
            ("EXEC", "-ERR EXEC without MULTI\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_watched_key_that_changed_and_changed_back_still_changed() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    converse(&mut client, &[("SET a 1", "+OK\r\n"), ("WATCH a", "+OK\r\n")]).await;
    converse(&mut other, &[("SET a 2", "+OK\r\n"), ("SET a 1", "+OK\r\n")]).await;
    converse(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a 9", "+QUEUED\r\n"),
            ("EXEC", "*-1\r\n"),
            ("GET a", "$1\r\n1\r\n"),
            // EXEC forgot the watch.
            ("MULTI", "+OK\r\n"),
            ("SET a 9", "+QUEUED\r\n"),
            ("EXEC", "*1\r\n+OK\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_watched_key_that_was_created_and_deleted_changed() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.check("WATCH a", "+OK\r\n").await;
    converse(&mut other, &[("SET a 2", "+OK\r\n"), ("DEL a", ":1\r\n")]).await;
    converse(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET b 9", "+QUEUED\r\n"),
            ("EXEC", "*-1\r\n"),
            ("GET b", "$-1\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_watched_key_that_expired_changed() {
    let server = Server::start().await;
    let mut client = server.client().await;
    converse(&mut client, &[("SET a 1 PX 10", "+OK\r\n"), ("WATCH a", "+OK\r\n")]).await;
    server.backend.advance(10);
    converse(&mut client, &[("MULTI", "+OK\r\n"), ("PING", "+QUEUED\r\n"), ("EXEC", "*-1\r\n")])
        .await;
}

#[tokio::test]
async fn unrelated_writes_and_deletes_of_nothing_leave_watches_alone() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    converse(&mut client, &[("WATCH a b", "+OK\r\n"), ("WATCH a", "+OK\r\n")]).await;
    converse(&mut other, &[("SET c 1", "+OK\r\n"), ("DEL a", ":0\r\n"), ("GET b", "$-1\r\n")])
        .await;
    converse(
        &mut client,
        &[("MULTI", "+OK\r\n"), ("INCR a", "+QUEUED\r\n"), ("EXEC", "*1\r\n:1\r\n")],
    )
    .await;
}

#[tokio::test]
async fn watching_twice_keeps_the_first_version() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.check("WATCH a", "+OK\r\n").await;
    other.check("SET a 1", "+OK\r\n").await;
    converse(
        &mut client,
        &[
            ("WATCH a", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("EXEC", "*-1\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn unwatch_and_discard_forget() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    for forget in [&[("UNWATCH", "+OK\r\n")][..], &[("MULTI", "+OK\r\n"), ("DISCARD", "+OK\r\n")]] {
        client.check("WATCH a", "+OK\r\n").await;
        other.check("SET a 1", "+OK\r\n").await;
        converse(&mut client, forget).await;
        converse(
            &mut client,
            &[("MULTI", "+OK\r\n"), ("GET a", "+QUEUED\r\n"), ("EXEC", "*1\r\n$1\r\n1\r\n")],
        )
        .await;
    }
}

#[tokio::test]
async fn watch_multi_exec_in_one_packet_see_each_other() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.send("SET a 1\r\nWATCH a\r\nMULTI\r\nINCR a\r\nEXEC\r\nGET a\r\n").await;
    client.expect("+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n$1\r\n2\r\n").await;
    // One's own write between WATCH and EXEC counts as well.
    client.send("WATCH a\r\nSET a 5\r\nMULTI\r\nINCR a\r\nEXEC\r\n").await;
    client.expect("+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n").await;
}

#[tokio::test]
async fn exec_without_its_watch_does_not_run_unguarded() {
    let server = Server::start().await;
    let mut client = server.client().await;
    *server.backend.fault.lock() = Some(Fault::Refuse);
    client.check("WATCH a", "-REFUSED not executed: no quorum, retry\r\n").await;
    *server.backend.fault.lock() = None;
    converse(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            ("EXEC", "-EXECABORT Transaction discarded because WATCH was refused.\r\n"),
            ("GET a", "$-1\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn resp3_has_one_null() {
    let server = Server::start().await;
    let (mut client, mut other) = (server.client().await, server.client().await);
    client.send("HELLO 3\r\nPING end\r\n").await;
    while client.reply_line_is_not("end").await {}
    client.check("WATCH a", "+OK\r\n").await;
    other.check("SET a 1", "+OK\r\n").await;
    converse(&mut client, &[("MULTI", "+OK\r\n"), ("PING", "+QUEUED\r\n"), ("EXEC", "_\r\n")])
        .await;
}

/// Redis would carry out both. Here they say in their place that they are not,
/// and the other commands take effect as they do there.
#[tokio::test]
async fn scan_and_a_change_of_protocol_are_refused_in_their_place() {
    let server = Server::start().await;
    let mut client = server.client().await;
    converse(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            ("SCAN 0", "+QUEUED\r\n"),
            ("HELLO 3", "+QUEUED\r\n"),
            ("HELLO 4", "+QUEUED\r\n"),
            ("SET a 1", "+QUEUED\r\n"),
            (
                "EXEC",
                "*4\r\n-ERR SCAN is not available inside a transaction; KEYS is\r\n\
                 -ERR HELLO cannot change the protocol inside a transaction; say it before MULTI\r\n\
                 -NOPROTO unsupported protocol version\r\n+OK\r\n",
            ),
            ("GET a", "$1\r\n1\r\n"),
            ("GET none", "$-1\r\n"),
            ("MULTI", "+OK\r\n"),
            ("HELLO 2 SETNAME me", "+QUEUED\r\n"),
        ],
    )
    .await;
    client.say("EXEC").await;
    client.expect("*1\r\n*14\r\n$6\r\nserver\r\n").await;
    server.client().await.check("GET a", "$1\r\n1\r\n").await;
}
