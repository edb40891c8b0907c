//! The command line that operators use, against a running cluster.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use quorate_tests::{Cluster, eventually, free_block, server};
use serde_json::Value;

fn quorate(cluster: &Cluster, node: u64, arguments: &[&str]) -> Value {
    try_quorate(cluster, node, arguments).unwrap_or_else(|error| panic!("{error}"))
}

/// What the program says, or what it complains of.
fn try_quorate(cluster: &Cluster, node: u64, arguments: &[&str]) -> Result<Value, String> {
    let admin = cluster.arguments(node, &cluster.directory(node), false);
    let at = admin.iter().position(|argument| argument == "--admin").unwrap() + 1;
    let output = Command::new(server())
        .args(arguments)
        .arg("--admin")
        .arg(&admin[at])
        .args(["--output", "json"])
        .output()
        .unwrap();
    let (said, error) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        return Err(format!("{arguments:?}: {said} {error}"));
    }
    Ok(serde_json::from_str(&said).unwrap_or_else(|why| panic!("{arguments:?}: {why} in {said}")))
}

#[test]
fn the_command_line_shows_and_changes_the_cluster() {
    let cluster = Cluster::start(3);
    cluster.client(1).must("SET some:key 1");
    let status = quorate(&cluster, 1, &["status"]);
    assert_eq!((&status["nodes"], &status["shards"]), (&3.into(), &8.into()), "{status}");
    let nodes = quorate(&cluster, 2, &["nodes"]);
    let gateways: Vec<_> =
        nodes.as_array().unwrap().iter().map(|node| node["gateway"].as_str().unwrap()).collect();
    let expected: Vec<String> = cluster.gateways().iter().map(ToString::to_string).collect();
    assert_eq!(gateways, expected, "{nodes}");
    let shards = eventually("every shard has a leader", Duration::from_secs(20), || {
        let shards = quorate(&cluster, 3, &["shards"]);
        let is_led = |shard: &Value| !shard["leader"].is_null();
        if shards.as_array().unwrap().iter().all(is_led) {
            Ok(shards)
        } else {
            Err(shards.to_string())
        }
    });
    for field in ["id", "range", "leader", "replicas", "epoch", "applied", "state_hash"] {
        let is_there = |shard: &Value| shard.get(field).is_some_and(|value| !value.is_null());
        assert!(shards.as_array().unwrap().iter().all(is_there), "{field}: {shards}");
    }
    // Any node takes the order, whoever leads.
    let shard = cluster.admin(1).shard_of("some:key").unwrap();
    for to in [1, 2, 3] {
        let (id, target) = (shard.id.to_string(), to.to_string());
        // By the program and by the interface, in turns.
        let by_command = || {
            try_quorate(&cluster, 1 + to % 3, &["shard", "transfer", &id, "--to", &target])
                .map(drop)
        };
        let by_request = || cluster.admin(1 + to % 3).transfer(shard.id, to);
        let mut is_by_command = to != 2;
        eventually("the leadership moves", Duration::from_secs(60), || {
            let leader = cluster.admin(to).shard_of("some:key")?.leader;
            if leader == Some(to) {
                return Ok(());
            }
            is_by_command = !is_by_command;
            if is_by_command {
                by_command()?
            } else {
                by_request()?
            }
            Err(format!("{leader:?} led"))
        });
    }
    let (status, body) = cluster.admin(1).request("GET", "/metrics", "").unwrap();
    assert!(status == 200 && body.contains("quorate_watermark_logged"), "{body}");
    let gauge =
        |name: &str| body.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    assert!(gauge("quorate_raft_log_entries_longest ").is_some_and(|entries: u64| entries > 0));
    assert!(gauge("quorate_inbox_transactions ").is_some_and(|queued| queued <= 16_384));
    let (status, body) = cluster.admin(1).request("POST", "/v1/shards/999/split", "").unwrap();
    assert!(status == 404 && body.contains("error"), "{status} {body}");
}

/// A base port below, at and above which `dev` finds free what it listens on.
fn free_base() -> u16 {
    let is_free =
        |port: u16| std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).is_ok();
    eventually("a base port is free", Duration::from_secs(20), || {
        let base = free_block();
        let ports = (1..=3).flat_map(|node| [base + node, base - 700 + node, base + 1_000 + node]);
        if ports.into_iter().all(is_free) { Ok(base) } else { Err(base.to_string()) }
    })
}

#[test]
fn dev_runs_a_cluster_and_takes_it_along() {
    // Its nodes' ports lie in three free blocks.
    let directory = tempfile::TempDir::new().unwrap();
    let _machine = Cluster::seats(1);
    let base = free_base();
    let mut dev = Command::new(server())
        .args(["dev", "--nodes", "3", "--base-port", &base.to_string(), "--dir"])
        .arg(directory.path())
        .env("RUST_LOG", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(dev.stdout.take().unwrap()).lines();
    let mut addresses = Vec::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        let gateway =
            (1..=3).map(|node| base - 700 + node).find(|port| line.contains(&format!(":{port}")));
        addresses.extend(gateway);
        if addresses.len() == 3 {
            break;
        }
    }
    assert_eq!(addresses.len(), 3, "each node's gateway is printed");
    for port in &addresses {
        let mut client = quorate_tests::Client::connect(([127, 0, 0, 1], *port).into()).unwrap();
        client.must(&format!("SET from:{port} 1"));
    }
    let ended = Command::new("/bin/kill").arg(dev.id().to_string()).status().unwrap();
    assert!(ended.success());
    let exit = eventually("dev ends", Duration::from_secs(20), || {
        dev.try_wait().unwrap().ok_or_else(|| "it runs".to_owned())
    });
    assert!(exit.success(), "{exit}");
    for port in addresses {
        let left = quorate_tests::Client::connect(([127, 0, 0, 1], port).into());
        assert!(left.is_err(), "a node outlived dev");
    }
}
