//! What is too much, and what is nonsense.

use quorate_server::GatewayLimits;

use crate::support::{Server, converse, encode};

fn small() -> GatewayLimits {
    GatewayLimits {
        connections_max: 2,
        inline_bytes_max: 100,
        bulk_bytes_max: 50,
        elements_max: 10,
        request_bytes_max: 200,
        transaction_commands_max: 3,
        watched_keys_max: 2,
        ..GatewayLimits::default()
    }
}

#[tokio::test]
async fn malformed_input_is_named_and_ends_the_connection() {
    let server = Server::with_limits(small()).await;
    let long_line = "x".repeat(100);
    let long_count = format!("*{}", "1".repeat(64));
    let long_length = format!("*1\r\n${}", "1".repeat(64));
    let large = format!("*9\r\n{}", format!("$50\r\n{}\r\n", "x".repeat(50)).repeat(9));
    let cases = [
        ("*x\r\n", "invalid multibulk length"),
        ("*11\r\n", "invalid multibulk length"),
        ("*99999999999999999999\r\n", "invalid multibulk length"),
        ("*1\r\n:1\r\n", "expected \\'$\\', got \\':\\'"),
        ("*1\r\n*1\r\n", "expected \\'$\\', got \\'*\\'"),
        ("*1\r\n$x\r\n", "invalid bulk length"),
        ("*1\r\n$51\r\n", "invalid bulk length"),
        ("*1\r\n$-1\r\n", "invalid bulk length"),
        ("*1\r\n$1\r\nabc\r\n", "expected the end of a line after a bulk string"),
        ("ECHO \"a\r\n", "unbalanced quotes in request"),
        (&long_line, "too big inline request"),
        (&long_count, "too big mbulk count string"),
        (&long_length, "too big bulk count string"),
        (&large, "request exceeds 200 bytes"),
    ];
    for (wire, message) in cases {
        let mut client = server.client().await;
        client.send(format!("PING\r\n{wire}")).await;
        let expected = format!(r"+PONG\r\n-ERR Protocol error: {message}\r\n");
        assert_eq!(client.rest().await, expected, "{wire}");
    }
    assert!(server.metrics.render().contains("quorate_gateway_protocol_errors_total 14"));
}

#[tokio::test]
async fn hostile_nesting_and_noise_end_only_their_connection() {
    let server = Server::start().await;
    for wire in [&b"*1\r\n".repeat(10_000)[..], &[0xff; 70_000], b"*1\r\n$0\r\n\r\n", b"\0\r\n"] {
        let mut client = server.client().await;
        client.send(wire).await;
        client.send("\r\nQUIT\r\n").await;
        assert!(client.rest().await.starts_with("-ERR "));
    }
    server.client().await.check("PING", "+PONG\r\n").await;
}

#[tokio::test]
async fn inline_commands_are_words_on_a_line() {
    let server = Server::start().await;
    let mut client = server.client().await;
    client.send("SET \"a b\" 'it\\'s'\r\nGET \"a\\x20b\"\n\r\n\n*0\r\nPING\r\n").await;
    client.expect("+OK\r\n$4\r\nit's\r\n+PONG\r\n").await;
}

#[tokio::test]
async fn requests_may_arrive_byte_by_byte() {
    let server = Server::start().await;
    let mut client = server.client().await;
    for byte in encode(&["SET", "key", "value"]) {
        client.send([byte]).await;
    }
    client.expect("+OK\r\n").await;
}

#[tokio::test]
async fn transactions_and_watches_are_bounded() {
    let server = Server::with_limits(small()).await;
    const ABORTED: &str = "-EXECABORT Transaction discarded because of previous errors.\r\n";
    converse(
        &mut server.client().await,
        &[
            ("MULTI", "+OK\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("UNWATCH", "+QUEUED\r\n"),
            ("PING", "-ERR transaction too large\r\n"),
            ("PING", "+QUEUED\r\n"),
            ("EXEC", ABORTED),
            ("WATCH a b c", "-ERR too many watched keys\r\n"),
            ("MULTI", "+OK\r\n"),
            ("EXEC", "-EXECABORT Transaction discarded because WATCH was refused.\r\n"),
            ("WATCH a b a", "+OK\r\n"),
            ("MULTI", "+OK\r\n"),
            ("EXEC", "*0\r\n"),
        ],
    )
    .await;
}

#[tokio::test]
async fn values_and_keys_are_bounded() {
    let server = Server::with_limits(small()).await;
    let mut client = server.client().await;
    let forty = "x".repeat(40);
    client.check(&format!("APPEND a {forty}"), ":40\r\n").await;
    client
        .check(
            &format!("APPEND a {forty}"),
            "-ERR string exceeds maximum allowed size (proto-max-bulk-len)\r\n",
        )
        .await;
    client.check("STRLEN a", ":40\r\n").await;
}

/// What the transaction layer would refuse after several hops and seconds is
/// refused here, at once and by name.
#[tokio::test]
async fn nothing_is_taken_that_the_transaction_layer_refuses() {
    use quorate_calvin::limits::{CALL_BYTES_MAX, KEY_BYTES_MAX};
    let server = Server::start().await;
    let mut client = server.client().await;
    let longest = "k".repeat(KEY_BYTES_MAX - 2);
    client.check(&format!("GET {longest}"), "$-1\r\n").await;
    client.check(&format!("GET {longest}k"), "-ERR key is longer than 32766 bytes\r\n").await;

    // Its keys are arguments, and names of locks once more.
    let keys: Vec<String> = (0..20).map(|number| format!("{number:0>30000}")).collect();
    let too_long = "-ERR the command with its keys is longer than 786432 bytes; split it\r\n";
    client.check(&format!("MGET {}", keys.join(" ")), too_long).await;
    client.check(&format!("MGET {}", keys[..12].join(" ")), &nulls(12)).await;

    let value = "v".repeat(400_000);
    converse(
        &mut client,
        &[
            ("MULTI", "+OK\r\n"),
            (&format!("SET a {value}"), "+QUEUED\r\n"),
            (&format!("SET b {value}"), "-ERR transaction too large\r\n"),
            ("EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
            ("EXISTS a b", ":0\r\n"),
            ("MULTI", "+OK\r\n"),
            (&format!("MGET {}", keys[..10].join(" ")), "+QUEUED\r\n"),
            (&format!("MGET {}", keys[10..].join(" ")), "-ERR transaction too large\r\n"),
            ("DISCARD", "+OK\r\n"),
            (&format!("WATCH {}", keys[..12].join(" ")), "+OK\r\n"),
            (&format!("WATCH {}", keys[12..].join(" ")), WATCHES_TOO_LONG),
            ("MULTI", "+OK\r\n"),
            ("EXEC", "-EXECABORT Transaction discarded because WATCH was refused.\r\n"),
        ],
    )
    .await;

    let value = "v".repeat(500_000);
    client.send(encode(&["MSET", "a", &value, "b", &value])).await;
    let end = client.rest().await;
    assert_eq!(end, format!(r"-ERR Protocol error: request exceeds {CALL_BYTES_MAX} bytes\r\n"));
    for limits in [
        GatewayLimits { request_bytes_max: CALL_BYTES_MAX + 1, ..GatewayLimits::default() },
        GatewayLimits { bulk_bytes_max: CALL_BYTES_MAX + 1, ..GatewayLimits::default() },
    ] {
        assert!(limits.check().unwrap_err().to_string().contains("must be between 1 and 786432"));
    }
}

const WATCHES_TOO_LONG: &str = "-ERR the watched keys are too long together\r\n";

fn nulls(count: usize) -> String {
    format!("*{count}\r\n{}", "$-1\r\n".repeat(count))
}

#[tokio::test]
async fn connections_are_bounded() {
    let server = Server::with_limits(small()).await;
    let (mut first, mut second) = (server.client().await, server.client().await);
    first.check("PING", "+PONG\r\n").await;
    second.check("PING", "+PONG\r\n").await;
    let mut third = server.client().await;
    assert_eq!(third.rest().await, r"-ERR max number of clients reached\r\n");
    first.send("QUIT\r\n").await;
    first.rest().await;
    drop(first);
    // The place is free once the server has seen the end.
    loop {
        let mut next = server.client().await;
        next.send("QUIT\r\n").await;
        if next.rest().await == r"+OK\r\n" {
            break;
        }
    }
}

#[test]
fn limits_that_nobody_could_serve_are_refused() {
    let zero = GatewayLimits { elements_max: 0, ..GatewayLimits::default() };
    let error = zero.check().unwrap_err().to_string();
    assert!(error.starts_with("limits.elements_max must be between 1"), "{error}");
    let huge = GatewayLimits { bulk_bytes_max: usize::MAX, ..GatewayLimits::default() };
    assert!(huge.check().is_err());
}
