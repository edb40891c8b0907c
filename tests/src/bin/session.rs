//! A node that embeds quorate, as a service would, and runs transactions that
//! it is told line by line: what the gateway cannot be asked for, because its
//! protocol has no request ids.
//!
//! `session NODE ADDRESS DIRECTORY MEMBERS DEADLINE`, where the members of the
//! initial cluster are written `1=HOST:PORT,2=HOST:PORT,...`, and the deadline
//! is that of each call in milliseconds. Each line on standard input is
//! answered by one line on standard output:
//!
//! ```text
//! reserve                                   id CLIENT SEQUENCE BIRTH ACK
//! retry CLIENT SEQUENCE BIRTH ACK K=V ...   done K=V ...: what stood there before
//! put K=V ...                               done
//! get K ...                                 done K=V ...
//! route K                                   route SHARD LEADER
//! transfer K NODE                           done
//! split K                                   done
//! ```
//!
//! or by `unclear` and a reason (it may be asked again), or `failed` and a
//! reason. One order is only begun, whatever else is under way, and its answer
//! comes when it has one, by the value that it writes to all of its keys:
//!
//! ```text
//! swap V K ...                              swapped V K=V ...: what stood there before
//!                                           refused V: it was not executed
//!                                           unknown V CLIENT SEQUENCE BIRTH ACK: to be retried
//! ```
//!
//! The node ends when standard input does.

use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

use quorate::types::{Blob, ClientId, Epoch, NodeId, RequestId};
use quorate::{Answer, ExecuteError, Node, NodeConfig, Session, Transaction};
use tokio::runtime::Runtime;

/// How long the node may take to serve.
const START: Duration = Duration::from_secs(60);

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [number, address, directory, members, deadline] = arguments.as_slice() else {
        return Err("session NODE ADDRESS DIRECTORY MEMBERS DEADLINE".into());
    };
    let mut config = NodeConfig::new(NodeId(number.parse()?), directory);
    config.address.clone_from(address);
    config.initial_cluster = members.split(',').map(member).collect::<Result<_, _>>()?;
    config.client.deadline = Duration::from_millis(deadline.parse()?);
    config.shards = 4;
    config.split_keys = ["h", "n", "t"].map(|key| key.as_bytes().to_vec()).to_vec();
    let runtime = Runtime::new()?;
    let node = runtime.block_on(start(config))?;
    say("serving")?;
    for line in std::io::stdin().lines() {
        let line = line?;
        if let Some(swap) = line.strip_prefix("swap ") {
            runtime.spawn(run_swap(node.session(), swap.to_owned()));
            continue;
        }
        let answer = match runtime.block_on(obey(&node, &line)) {
            Ok(answer) => answer,
            Err(error) => match error.downcast_ref::<ExecuteError>() {
                Some(ExecuteError::Unknown(_) | ExecuteError::Refused(_)) => {
                    format!("unclear {error}")
                }
                _ => format!("failed {error}"),
            },
        };
        say(&answer)?;
    }
    Ok(())
}

async fn start(config: NodeConfig) -> Result<Node, Failure> {
    let node = Node::builder(config).start().await?;
    tokio::time::timeout(START, node.serving()).await??;
    Ok(node)
}

fn say(line: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn member(text: &str) -> Result<(NodeId, String), Failure> {
    let (node, address) = text.split_once('=').ok_or("a member is NODE=HOST:PORT")?;
    Ok((NodeId(node.parse()?), address.to_owned()))
}

async fn obey(node: &Node, line: &str) -> Result<String, Failure> {
    // One session for each order: a session's next request acknowledges what
    // it was answered before, and then there is nothing to retry any more.
    let session = node.session();
    let words: Vec<&str> = line.split_whitespace().collect();
    match words.as_slice() {
        ["reserve"] => Ok(format!("id {}", show_id(session.reserve()))),
        ["retry", client, sequence, birth, ack_below, pairs @ ..] => {
            let request = RequestId {
                client: ClientId(client.parse()?),
                sequence: sequence.parse()?,
                birth: Epoch(birth.parse()?),
                ack_below: ack_below.parse()?,
            };
            let keys: Vec<&str> = pairs.iter().filter_map(|pair| key(pair)).collect();
            // What it reads tells whether it ran again.
            let call = write(read(&keys), pairs).call();
            show(&keys, &session.retry(request, call).await?)
        }
        ["put", pairs @ ..] => {
            session.execute(write(Transaction::new(), pairs).call()).await?;
            Ok("done".to_owned())
        }
        ["get", keys @ ..] => show(keys, &session.execute(read(keys).call()).await?),
        ["route", key] => {
            let (shard, leader, _) = node.route(key.as_bytes()).ok_or("there is no map yet")?;
            Ok(format!("route {} {}", shard.0, leader.map_or(0, |leader| leader.0)))
        }
        ["transfer", key, to] => {
            let (shard, ..) = node.route(key.as_bytes()).ok_or("there is no map yet")?;
            node.transfer_leader(shard, NodeId(to.parse()?)).await?;
            Ok("done".to_owned())
        }
        ["split", key] => {
            let (shard, ..) = node.route(key.as_bytes()).ok_or("there is no map yet")?;
            node.split_shard(shard, Some((*key).into())).await?;
            Ok("done".to_owned())
        }
        _ => Err(format!("no such order: {line}").into()),
    }
}

/// The first attempt of a command that tells whether it ran again: it reads what
/// it overwrites.
async fn run_swap(session: Session, order: String) -> std::io::Result<()> {
    let (value, keys) = order.split_once(' ').unwrap_or((&order, ""));
    let keys: Vec<&str> = keys.split_whitespace().collect();
    let swap = keys.iter().fold(read(&keys), |so_far, key| so_far.put(*key, value));
    let answer = match session.execute(swap.call()).await {
        Ok(result) => show(&keys, &result)
            .map(|shown| shown.replacen("done", &format!("swapped {value}"), 1))
            .unwrap_or_else(|error| format!("failed {value} {error}")),
        Err(ExecuteError::Unknown(request)) => format!("unknown {value} {}", show_id(request)),
        Err(ExecuteError::Refused(_)) => format!("refused {value}"),
        Err(error) => format!("failed {value} {error}"),
    };
    say(&answer)
}

fn show_id(request: RequestId) -> String {
    let RequestId { client, sequence, birth, ack_below } = request;
    format!("{} {sequence} {} {ack_below}", client.0, birth.0)
}

fn key<'a>(pair: &&'a str) -> Option<&'a str> {
    pair.split_once('=').map(|(key, _)| key)
}

fn read(keys: &[&str]) -> Transaction {
    keys.iter().fold(Transaction::new(), |so_far, key| so_far.get(*key))
}

fn write(begun: Transaction, pairs: &[&str]) -> Transaction {
    let pairs = pairs.iter().filter_map(|pair| pair.split_once('='));
    pairs.fold(begun, |so_far, (key, value)| so_far.put(key, value))
}

fn show(keys: &[&str], result: &Blob) -> Result<String, Failure> {
    let answer = Answer::of(result)?;
    let mut line = "done".to_owned();
    for (key, value) in keys.iter().zip(&answer.values.0) {
        let value = value.as_ref().map_or("", |value| std::str::from_utf8(value).unwrap_or("?"));
        line.push_str(&format!(" {key}={value}"));
    }
    Ok(line)
}
