use super::super::folder::BLOCK_PORTS;
use super::*;

/// A cluster whose server is a line of shell.
fn cluster_of(line: &str) -> (tempfile::TempDir, Cluster) {
    let folder = tempfile::tempdir().unwrap();
    let server = folder.path().join("debug").join("quorate");
    std::fs::create_dir(server.parent().unwrap()).unwrap();
    // Another process writes the program: a descriptor of ours could slip
    // into a child of another test, and a program that is open for writing
    // cannot be started.
    let script = "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod +x \"$0\"";
    let status = Command::new("sh").args(["-c", script]).arg(&server).arg(line).status();
    assert!(status.unwrap().success());
    let cluster = Cluster::create(&server, true, &Interrupt::default()).unwrap();
    (folder, cluster)
}

#[test]
fn a_node_that_ends_while_starting_is_told_at_once() {
    let (_folder, mut cluster) = cluster_of("echo a reason >&2; exit 3");
    cluster.start(1).unwrap();
    let error = cluster.wait_ready(1).unwrap_err().to_string();
    assert!(error.contains("node 1 ended by itself"), "{error}");
    assert!(error.contains("a reason"), "{error}");
    assert_eq!(cluster.fallen().len(), 1);
}

#[test]
fn a_killed_node_is_gone_and_can_start_again() {
    let (_folder, mut cluster) = cluster_of("exec sleep 600");
    cluster.start(1).unwrap();
    cluster.start(2).unwrap();
    assert!(cluster.fallen().is_empty());
    cluster.kill(1).unwrap();
    assert_eq!(cluster.nodes(), [2]);
    assert!(cluster.kill(1).is_err());
    cluster.start(1).unwrap();
    assert_eq!(cluster.nodes(), [1, 2]);
    let dir = cluster.dir().to_path_buf();
    cluster.remove().unwrap();
    assert!(!dir.exists());
}

#[test]
fn every_node_has_ports_of_its_own() {
    let (_folder, cluster) = cluster_of("exit 1");
    let mut ports: Vec<u16> = FOUNDERS
        .into_iter()
        .chain([JOINER])
        .flat_map(|node| {
            [0, GATEWAY_ABOVE, ADMIN_ABOVE].map(|above| cluster.address(above, node).port())
        })
        .collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 12);
    let base_port = cluster.folder.base_port;
    assert!(ports.iter().all(|port| (base_port..base_port + BLOCK_PORTS).contains(port)));
}

#[test]
fn founders_found_and_others_join() {
    let (_folder, cluster) = cluster_of("exit 1");
    let founder = cluster.membership(1).join(" ");
    assert!(founder.starts_with("--initial-cluster 1=127.0.0.1:"), "{founder}");
    assert!(founder.ends_with("--shards 8 --replicas 3"), "{founder}");
    let joiner = cluster.membership(JOINER).join(" ");
    assert!(joiner.starts_with("--join 127.0.0.1:"), "{joiner}");
}

#[test]
fn only_nodes_that_run_are_said_to_go_on() {
    let (_folder, mut cluster) = cluster_of("exit 1");
    cluster.start(1).unwrap();
    cluster.wait_ready(1).unwrap_err();
    let said = cluster.leave_running();
    assert!(said.starts_with("no node runs;"), "{said}");
}

#[test]
fn an_interruption_ends_the_wait_for_a_node() {
    let (_folder, mut cluster) = cluster_of("exec sleep 600");
    cluster.start(1).unwrap();
    cluster.interrupt.set();
    assert_eq!(cluster.wait_ready(1).unwrap_err().to_string(), "interrupted");
    cluster.end();
    assert!(cluster.nodes().is_empty());
}
