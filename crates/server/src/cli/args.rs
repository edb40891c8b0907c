//! The flags.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use quorate_meta::limits::LABEL_BYTES_MAX;

use super::config::{InitialCluster, JoinList, LogKind};

/// Where a node's operators connect unless told otherwise: from its own machine.
pub(super) const ADMIN_DEFAULT: SocketAddr =
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8101));

/// A sharded, replicated key-value service with strictly serializable
/// transactions, over the Redis protocol.
#[derive(Parser, Debug)]
#[command(name = "quorate", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a node.
    Start(Box<StartArgs>),
    /// Run a whole cluster on this machine, each node a process.
    Dev(DevArgs),
    /// Show the cluster in a few numbers.
    Status(AdminAddress),
    /// List the nodes.
    Nodes(AdminAddress),
    /// List the shards.
    Shards(AdminAddress),
    /// List the migrations.
    Migrations(AdminAddress),
    /// Change a shard.
    #[command(subcommand)]
    Shard(ShardCommand),
    /// Change a node.
    #[command(subcommand)]
    Node(NodeCommand),
}

/// The flags of `start`; each overrides the same setting of the file.
#[derive(Args, Debug, Default)]
pub struct StartArgs {
    /// This node's number, unique for ever in its cluster.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub node: Option<u64>,
    /// Where this node keeps its data.
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Where other nodes reach this one.
    #[arg(long, value_parser = parse_address)]
    pub addr: Option<SocketAddr>,
    /// Where this node listens for the others, if that is not where they reach
    /// it: behind a proxy or a translated address [default: as --addr].
    #[arg(long, value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// Where clients connect, with the Redis protocol.
    #[arg(long, value_parser = parse_address)]
    pub gateway: Option<SocketAddr>,
    /// Where operators connect, with HTTP [default: 127.0.0.1:8101].
    #[arg(long, value_parser = parse_address)]
    pub admin: Option<SocketAddr>,
    /// The failure domain that this node stands in, such as a rack: replicas
    /// of a shard are spread over zones.
    #[arg(long, value_name = "NAME", value_parser = parse_zone)]
    pub zone: Option<String>,
    /// The nodes that found the cluster together: 1=IP:PORT,2=IP:PORT,...
    #[arg(long, value_name = "N=ADDR,...", conflicts_with = "join")]
    pub initial_cluster: Option<InitialCluster>,
    /// Members of the cluster to join: IP:PORT,...
    #[arg(long, value_name = "ADDR,...")]
    pub join: Option<JoinList>,
    /// How many shards a new cluster begins with [default: 8].
    #[arg(long)]
    pub shards: Option<u32>,
    /// How many replicas a new cluster keeps of each shard [default: 3, or as
    /// many as there are nodes].
    #[arg(long)]
    pub replicas: Option<u32>,
    /// What Raft's log is kept on: segments, or a redb file. A directory keeps to
    /// what it was begun with [default: segments].
    #[arg(long, value_enum)]
    pub log: Option<LogKind>,
    /// After so many seconds without use a group rests: it costs nothing then, and
    /// its next use one round trip more. 4 to 86400, or 0 for never [default: 5].
    #[arg(long, value_name = "SECONDS")]
    pub quiet_after: Option<u32>,
    /// Let leaders answer reads on the strength of their leases, which needs
    /// clocks that run equally fast. The same on all nodes, and changed only while
    /// all are stopped [default: false].
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub lease_reads: Option<bool>,
    /// A TOML file with these settings and the section `limits`. A client
    /// that pipelines more than its limits is held back, never refused.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// End when standard input does: a parent that dies takes the node along.
    #[arg(long, hide = true)]
    pub exit_with_parent: bool,
}

/// The flags of `dev`.
#[derive(Args, Debug)]
pub struct DevArgs {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
    pub nodes: u64,
    /// Where the nodes keep their data, each in its own folder.
    #[arg(long, default_value = "quorate-dev")]
    pub dir: PathBuf,
    /// Node N listens at PORT+N for nodes, PORT-700+N for clients and
    /// PORT+1000+N for operators.
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 7100,
        value_parser = clap::value_parser!(u16).range(1724..=64_000)
    )]
    pub base_port: u16,
    /// How many shards the cluster begins with.
    #[arg(long, default_value_t = 8)]
    pub shards: u32,
    /// How many replicas of each shard [default: 3, or as many as there are
    /// nodes].
    #[arg(long)]
    pub replicas: Option<u32>,
    /// A TOML file for every node, for instance with the section `limits`.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which node to ask, and how to print its answer.
#[derive(Args, Debug, Clone)]
pub struct AdminAddress {
    /// The admin address of any node.
    #[arg(long, value_name = "ADDR", value_parser = parse_address, default_value_t = ADMIN_DEFAULT)]
    pub admin: SocketAddr,
    /// How to print the answer.
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How answers are printed.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// What can be done to a shard.
#[derive(Subcommand, Debug)]
pub enum ShardCommand {
    /// Move a replica from one node to another.
    Move {
        /// The shard.
        id: u64,
        /// The node that gives its replica up.
        #[arg(long, value_name = "N")]
        from: u64,
        /// The node that takes it.
        #[arg(long, value_name = "N")]
        to: u64,
        /// Which node to ask.
        #[command(flatten)]
        admin: AdminAddress,
    },
    /// Make another node's replica the leader.
    Transfer {
        /// The shard.
        id: u64,
        /// The node that shall lead.
        #[arg(long, value_name = "N")]
        to: u64,
        /// Which node to ask.
        #[command(flatten)]
        admin: AdminAddress,
    },
    /// Split a shard in two.
    Split {
        /// The shard.
        id: u64,
        /// The key to split at; the middle otherwise.
        #[arg(long)]
        key: Option<String>,
        /// Which node to ask.
        #[command(flatten)]
        admin: AdminAddress,
    },
}

/// What can be done to a node.
#[derive(Subcommand, Debug)]
pub enum NodeCommand {
    /// Take every replica off a node.
    Drain {
        /// The node.
        id: u64,
        /// Which node to ask.
        #[command(flatten)]
        admin: AdminAddress,
    },
}

/// A name that fits a label of the metadata.
pub(super) fn parse_zone(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LABEL_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!("give a name of 1 to {LABEL_BYTES_MAX} printable bytes"));
    }
    Ok(text.to_owned())
}

/// An address in the one form that every flag takes.
pub(super) fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("'{text}' is not an address; write IP:PORT, for example 127.0.0.1:7101")
    })
}
