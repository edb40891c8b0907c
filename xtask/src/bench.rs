//! `cargo xtask bench`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Subcommand;
use serde_json::Value;

use crate::{Outcome, shell};

#[path = "../../benches/src/bin/groups-bench/options.rs"]
mod groups;
#[path = "../../benches/src/bin/openraft-bench/options.rs"]
mod openraft;
/// The benches' own flags: one definition, so that their help is at hand before
/// anything is compiled.
#[path = "../../benches/src/bin/cluster-bench/options.rs"]
mod options;
#[path = "../../benches/src/bin/raft-bench/options.rs"]
mod raft;

use options::Options;

const PACKAGE: &str = "quorate-benches";
const CLUSTER: &str = "cluster-bench";
const RAFT: &str = "raft-bench";
const OPENRAFT: &str = "openraft-bench";
const GROUPS: &str = "groups-bench";
/// The part of it that has a peer.
const CLIENTS: &str = "clients";
/// What others offer, in a workspace of its own.
const PEERS: &str = "benches/peers";
const LOGS_OF_OTHERS: &str = "bench-logs";
const CLIENTS_OF_ETCD: &str = "bench-etcd";

/// What `bench` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Everything without one: the cores, Raft, then the cluster.
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Subcommand)]
enum What {
    /// The cores, each against what the machine allows (criterion).
    Cores {
        /// Passed on to `cargo bench`: `--bench codecs` for one file, and
        /// behind `--` what criterion takes, for instance a part of a name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        criterion: Vec<String>,
    },
    /// The Raft log beside the disk's limit and logs of others, a group beside
    /// openraft, then many groups.
    Raft(raft::Options),
    /// Writes to a group in memory beside those of bare openraft.
    Openraft(openraft::Options),
    /// Raft groups on three processes: what many cost while nobody uses them, how
    /// soon they serve again when a process is killed, what a leader's writes lose
    /// while a follower catches up by a snapshot, and the puts and reads of clients
    /// beside etcd's.
    Groups(groups::Options),
    /// A cluster of processes under load: one table, with the disk's limit and
    /// installed peers beside it.
    Cluster(Options),
}

/// The benches, in plain release.
pub(crate) fn run(args: &Args) -> Outcome {
    match &args.what {
        Some(What::Cores { criterion }) => cores(criterion),
        Some(What::Raft(options)) => {
            raft_log(&raft_arguments(options), options.peers.is_none())?;
            if options.log_only {
                return Ok(());
            }
            beside_openraft(&[])?;
            many_groups(&[], true)
        }
        Some(What::Openraft(options)) => beside_openraft(&openraft_arguments(options)),
        Some(What::Groups(options)) => {
            let wants_peers = options.parts.iter().any(|part| part == CLIENTS);
            many_groups(&groups_arguments(options), wants_peers && options.etcd_clients.is_none())
        }
        Some(What::Cluster(options)) => {
            cluster(&to_arguments(options), !options.no_peers && options.etcd_clients.is_none())
        }
        None => {
            cores(&[])?;
            raft_log(&[], true)?;
            beside_openraft(&[])?;
            many_groups(&[], true)?;
            cluster(&[], true)
        }
    }
}

/// The Raft log, beside logs of others.
fn raft_log(arguments: &[OsString], wants_peers: bool) -> Outcome {
    beside(RAFT, arguments, wants_peers.then_some((LOGS_OF_OTHERS, "--peers")))
}

fn beside_openraft(arguments: &[OsString]) -> Outcome {
    beside(OPENRAFT, arguments, None)
}

/// Groups on three processes, a part of them beside etcd.
fn many_groups(arguments: &[OsString], wants_peers: bool) -> Outcome {
    beside(GROUPS, arguments, wants_peers.then_some((CLIENTS_OF_ETCD, "--etcd-clients")))
}

/// Builds a bench and, where it can be had, the program of its peer, which a flag
/// names; then runs it.
fn beside(program: &str, arguments: &[OsString], with: Option<(&str, &str)>) -> Outcome {
    let target = target_directory()?;
    let mut command = built(&target, program)?;
    command.args(arguments);
    if let Some((program, flag)) = with {
        command.args(peer(&target, program, flag));
    }
    shell::run(&mut command)
}

/// Builds a bench that needs no other program.
fn built(target: &Path, program: &str) -> Outcome<Command> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", PACKAGE, "--bin", program]);
    shell::run(&mut build)?;
    Ok(Command::new(target.join("release").join(program)))
}

/// Builds a program of the peers; the flag that tells where it is, unless it
/// cannot be had.
fn peer(target: &Path, program: &str, flag: &str) -> Vec<OsString> {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--bin", program, "--manifest-path"]);
    let folder = target.join("peers");
    let manifest = Path::new(PEERS).join("Cargo.toml");
    match shell::run(build.arg(manifest).arg("--target-dir").arg(&folder)) {
        Ok(()) => vec![flag.into(), folder.join("release").join(program).into()],
        Err(error) => {
            eprintln!("without {program}: {error}");
            Vec::new()
        }
    }
}

fn raft_arguments(options: &raft::Options) -> Vec<OsString> {
    let raft::Options { rounds, millis, shapes, logs, open_mib, log_only: _, dir, json, peers } =
        options;
    let mut arguments: Vec<OsString> = Vec::new();
    if let Some(logs) = logs {
        arguments.extend(["--logs".into(), logs.join(",").into()]);
    }
    for (flag, value) in [
        ("--rounds", rounds.to_string()),
        ("--millis", millis.to_string()),
        ("--shapes", shapes.join(",")),
        ("--open-mib", open_mib.to_string()),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    arguments.extend(paths([("--dir", dir), ("--json", json), ("--peers", peers)]));
    arguments
}

fn openraft_arguments(options: &openraft::Options) -> Vec<OsString> {
    let openraft::Options { rounds, clients, commands, member_threads, client_threads, .. } =
        options;
    let openraft::Options { only, json, .. } = options;
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, value) in [
        ("--rounds", rounds.to_string()),
        ("--clients", clients.to_string()),
        ("--commands", commands.to_string()),
        ("--member-threads", member_threads.to_string()),
        ("--client-threads", client_threads.to_string()),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    if let Some(only) = only {
        arguments.extend(["--only".into(), only.into()]);
    }
    arguments.extend(paths([("--json", json)]));
    arguments
}

fn groups_arguments(options: &groups::Options) -> Vec<OsString> {
    let groups::Options { groups, seconds, led, clients, rounds, dir, json, .. } = options;
    let groups::Options { state_mib, snapshot_mib_per_second, parts, .. } = options;
    let groups::Options { callers, call_seconds, etcd_clients, .. } = options;
    let callers: Vec<String> = callers.iter().map(u32::to_string).collect();
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, value) in [
        ("--groups", groups.to_string()),
        ("--seconds", seconds.to_string()),
        ("--led", led.to_string()),
        ("--clients", clients.to_string()),
        ("--rounds", rounds.to_string()),
        ("--state-mib", state_mib.to_string()),
        ("--callers", callers.join(",")),
        ("--call-seconds", call_seconds.to_string()),
        ("--parts", parts.join(",")),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    if let Some(mib) = snapshot_mib_per_second {
        arguments.extend(["--snapshot-mib-per-second".into(), mib.to_string().into()]);
    }
    arguments.extend(paths([("--dir", dir), ("--json", json), ("--etcd-clients", etcd_clients)]));
    arguments
}

/// The flags that are given.
fn paths<const N: usize>(
    flags: [(&'static str, &Option<PathBuf>); N],
) -> impl Iterator<Item = OsString> {
    let given = flags.into_iter().filter_map(|(flag, path)| Some((flag, path.clone()?)));
    given.flat_map(|(flag, path)| [flag.into(), path.into()])
}

fn cores(criterion: &[String]) -> Outcome {
    shell::run(shell::cargo().args(["bench", "--package", PACKAGE]).args(criterion))
}

/// Builds server and clients in one go, and runs the clients.
fn cluster(arguments: &[OsString], wants_peers: bool) -> Outcome {
    let mut build = shell::cargo();
    build.args(["build", "--release", "--package", "quorate-server", "--package", PACKAGE]);
    shell::run(build.arg("--bins"))?;
    let target = target_directory()?;
    let mut command = Command::new(target.join("release").join(CLUSTER));
    command.arg("--exit-with-parent").args(arguments).stdin(Stdio::piped());
    if wants_peers {
        command.args(peer(&target, CLIENTS_OF_ETCD, "--etcd-clients"));
    }
    let shown = shell::show(&command);
    eprintln!("$ {shown}");
    let mut child = command.spawn().map_err(|error| format!("cannot run '{shown}': {error}"))?;
    // However this process ends, the bench sees its standard input end, and
    // takes the nodes along. Waiting would close it if it were left in place.
    let input = child.stdin.take();
    let status = child.wait()?;
    drop(input);
    if status.success() { Ok(()) } else { Err(format!("'{shown}' failed ({status})").into()) }
}

fn target_directory() -> Outcome<PathBuf> {
    let mut metadata = shell::cargo();
    metadata.args(["metadata", "--format-version", "1", "--no-deps"]);
    let metadata: Value = serde_json::from_str(&shell::read(&mut metadata)?)?;
    let target = metadata.get("target_directory").and_then(Value::as_str);
    Ok(target.ok_or("cargo metadata names no target directory")?.into())
}

/// The flags as the bench takes them.
fn to_arguments(options: &Options) -> Vec<OsString> {
    let Options { seconds, clients, work, nodes, shards, dir, json, no_peers, etcd_clients } =
        options;
    let clients: Vec<String> = clients.iter().map(u32::to_string).collect();
    let mut arguments: Vec<OsString> = Vec::new();
    for (flag, value) in [
        ("--seconds", seconds.to_string()),
        ("--clients", clients.join(",")),
        ("--work", work.join(",")),
        ("--nodes", nodes.to_string()),
        ("--shards", shards.to_string()),
    ] {
        arguments.extend([flag.into(), value.into()]);
    }
    arguments.extend(paths([("--dir", dir), ("--json", json), ("--etcd-clients", etcd_clients)]));
    if *no_peers {
        arguments.push("--no-peers".into());
    }
    arguments
}

#[cfg(test)]
mod tests;
