//! The commands that ask a running node.

use serde_json::{Value, json};

use super::args::{AdminAddress, Command, NodeCommand, Output, ShardCommand};
use super::client::{AdminClient, ClientError};
use super::table;

const NODES: &[&str] =
    &["id", "address", "gateway", "admin", "state", "draining", "replicas", "leaders"];
const SHARDS: &[&str] = &["id", "range", "leader", "replicas", "epoch", "applied", "state_hash"];
const MIGRATIONS: &[&str] =
    &["id", "kind", "group", "from", "to", "phase", "attempt", "write_pause_micros", "error"];

/// Asks, and prints the answer.
pub(super) async fn run(command: Command) -> Result<(), ClientError> {
    match command {
        Command::Status(admin) => show(&admin, "/v1/status", &[]).await,
        Command::Nodes(admin) => show(&admin, "/v1/nodes", NODES).await,
        Command::Shards(admin) => show(&admin, "/v1/shards", SHARDS).await,
        Command::Migrations(admin) => show(&admin, "/v1/migrations", MIGRATIONS).await,
        Command::Shard(ShardCommand::Move { id, from, to, admin }) => {
            let body = json!({ "from": from, "to": to });
            change(&admin, &format!("/v1/shards/{id}/move"), &body).await
        }
        Command::Shard(ShardCommand::Transfer { id, to, admin }) => {
            change(&admin, &format!("/v1/shards/{id}/transfer"), &json!({ "to": to })).await
        }
        Command::Shard(ShardCommand::Split { id, key, admin }) => {
            let body = key.map_or_else(|| json!({}), |key| json!({ "key": key }));
            change(&admin, &format!("/v1/shards/{id}/split"), &body).await
        }
        Command::Node(NodeCommand::Drain { id, admin }) => {
            change(&admin, &format!("/v1/nodes/{id}/drain"), &json!({})).await
        }
        // These run a node and ask none.
        Command::Start(_) | Command::Dev(_) => Ok(()),
    }
}

async fn show(admin: &AdminAddress, path: &str, columns: &[&str]) -> Result<(), ClientError> {
    let answer = AdminClient::new(admin.admin).get(path).await?;
    print(admin.output, &answer, columns);
    Ok(())
}

async fn change(admin: &AdminAddress, path: &str, body: &Value) -> Result<(), ClientError> {
    let answer = AdminClient::new(admin.admin).post(path, body).await?;
    print(admin.output, &answer, &[]);
    Ok(())
}

fn print(output: Output, answer: &Value, columns: &[&str]) {
    match output {
        Output::Table => print!("{}", table::render(answer, columns)),
        Output::Json => println!("{answer:#}"),
    }
}
