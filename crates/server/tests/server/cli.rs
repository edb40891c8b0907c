//! The binary from outside: what it prints and how it ends.

use std::process::Output;

use tokio::process::Command;

use crate::admin::Node;

async fn quorate(line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(line.split_whitespace())
        .output()
        .await
        .unwrap()
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn complaint(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_node_is_shown_as_a_table_or_as_json() {
    let node = Node::start().await;
    let admin = node.admin_address;
    let table = stdout(&quorate(&format!("shards --admin {admin}")).await);
    assert!(
        table.starts_with("ID  RANGE  LEADER  REPLICAS  EPOCH  APPLIED  STATE_HASH\n"),
        "{table}"
    );
    let json = stdout(&quorate(&format!("nodes --admin {admin} --output json")).await);
    let nodes: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(nodes[0]["id"], 1);
    for line in [
        "shard move 1 --from 1 --to 2",
        "shard transfer 1 --to 2",
        "shard split 1 --key m",
        "shard split 1",
        "node drain 1",
        "status",
        "migrations",
    ] {
        stdout(&quorate(&format!("{line} --admin {admin}")).await);
    }
    let refused = quorate(&format!("shard transfer 2 --to 2 --admin {admin}")).await;
    assert_eq!(complaint(&refused), "error: shard 2 is moving already\n");
}

#[tokio::test]
async fn what_cannot_work_is_said_and_the_status_is_not_zero() {
    let unreachable = complaint(&quorate("status --admin 127.0.0.1:1").await);
    assert!(unreachable.contains("cannot reach 127.0.0.1:1"), "{unreachable}");
    let address = complaint(&quorate("status --admin here").await);
    assert!(address.contains("write IP:PORT"), "{address}");
    let nothing = complaint(&quorate("start --node 1 --dir nowhere").await);
    assert_eq!(
        nothing,
        "error: --addr is missing: give the flag, or addr in the configuration file\n"
    );
    let nodes = complaint(&quorate("dev --nodes 0").await);
    assert!(nodes.contains("1..=9"), "{nodes}");
}

#[tokio::test]
async fn a_configuration_file_with_an_unknown_setting_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("quorate.toml");
    std::fs::write(&path, "node = 1\nshard = 8\n").unwrap();
    let error = complaint(&quorate(&format!("start --config {}", path.display())).await);
    assert!(error.contains("unknown field `shard`"), "{error}");
}
