//! One node in one process, no configuration: a strictly serializable store.

use quorate::types::NodeId;
use quorate::{Answer, Node, NodeConfig, Transaction};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::temp_dir().join(format!("quorate-embedded-{}", std::process::id()));
    let node = Node::builder(NodeConfig::new(NodeId(1), &directory)).start().await?;
    node.serving().await?;
    let session = node.session();
    session.execute(Transaction::new().put("alice", "100").put("bob", "0").call()).await?;
    let transfer = Transaction::new()
        .expect("alice", Some("100".into()))
        .put("alice", "60")
        .put("bob", "40")
        .call();
    assert!(Answer::of(&session.execute(transfer).await?)?.committed);
    let read = Transaction::new().get("alice").get("bob").call();
    println!("alice and bob: {:?}", Answer::of(&session.execute(read).await?)?.values);
    node.shutdown().await?;
    std::fs::remove_dir_all(directory)?;
    Ok(())
}
