//! Before a node serves: it says so, and answers nothing.

use std::time::Duration;

use quorate_tests::{Cluster, Reply, eventually, words};
use serde_json::Value;

/// How long a process may take to open its doors.
const OPENS: Duration = Duration::from_secs(30);

#[test]
fn a_node_alone_is_alive_and_not_ready_until_the_others_come() {
    let mut cluster = Cluster::seats(3);
    cluster.spawn(1);
    let admin = cluster.admin(1);
    let ask = |path: &str| admin.request("GET", path, "");
    let healthy = eventually("the process answers", OPENS, || ask("/healthz"));
    assert_eq!(healthy, (200, "ok\n".to_owned()));

    assert_waits(&cluster);
    // One more is a majority of the metadata's founders, but not all of them.
    cluster.spawn(2);
    assert_waits(&cluster);

    cluster.start_all();
    for node in 1..=3 {
        assert_eq!(cluster.admin(node).request("GET", "/readyz", "").unwrap().0, 200);
        // Nothing that was refused has happened.
        let early = cluster.client(node).must("MGET early:1 early:2 early:3").elements();
        assert_eq!(early, [Reply::Nil, Reply::Nil, Reply::Nil]);
    }
    assert_eq!(cluster.client(1).must("SET late 1"), Reply::ok());
    assert_eq!(cluster.client(3).must("GET late"), Reply::bulk("1"));
}

/// Node 1 says why it does not serve, and refuses whatever needs the data.
#[track_caller]
fn assert_waits(cluster: &Cluster) {
    let (status, body) = cluster.admin(1).request("GET", "/readyz", "").unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    let reason = body["error"].as_str().unwrap_or_default();
    assert_eq!((status, reason.is_empty()), (503, false), "{body}");

    let lines = [
        "PING",
        "GET early:1",
        "SET early:1 1",
        "MSET early:1 1 early:2 1",
        "DBSIZE",
        "SCAN 0",
        "MULTI",
        "SET early:3 1",
        "EXEC",
    ];
    let replies = cluster.client(1).pipeline(&lines.map(words)).unwrap();
    for (line, reply) in lines.into_iter().zip(replies) {
        let is_right = match (line, &reply) {
            ("MULTI", Reply::Simple(text)) => text == "OK",
            ("SET early:3 1", Reply::Simple(text)) => text == "QUEUED",
            (_, Reply::Error(text)) => text.starts_with("LOADING "),
            _ => false,
        };
        assert!(is_right, "{line}: {reply:?}");
    }
}
