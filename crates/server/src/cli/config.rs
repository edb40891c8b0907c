//! A node's configuration: defaults, under the file, under the flags.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use quorate::LogMedium;
use quorate_raft::HostConfig;
use quorate_types::NodeId;
use serde::Deserialize;

use super::args::{ADMIN_DEFAULT, StartArgs, parse_address, parse_zone};
use crate::gateway::{GatewayLimits, LimitError};
use crate::serve::ServeConfig;

/// Shards that a new cluster begins with.
const SHARDS_DEFAULT: u32 = 8;
/// Each shard is a Raft group on every node that holds it.
const SHARDS_MAX: u32 = 4_096;
/// Survives the loss of one node.
const REPLICAS_DEFAULT: u32 = 3;
/// More replicas only make writes slower.
const REPLICAS_MAX: u32 = 9;
/// How soon a group may rest: twice the longest time to an election.
const QUIET_SECONDS_MIN: u32 = 4;
/// A group that rests after a day never does.
const QUIET_SECONDS_MAX: u32 = 86_400;
const QUIET_SECONDS_DEFAULT: u32 = 5;
/// Longest configuration file; a larger one is not one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file is far too long to be one.
    #[error("the configuration file {0} is longer than {FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// The file has an error or a setting that does not exist.
    #[error("the configuration file {path} has an error: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A setting without a default is missing.
    #[error("{0} is missing: give the flag, or {1} in the configuration file")]
    Missing(&'static str, &'static str),
    /// Nothing says how the node finds its cluster.
    #[error("say which cluster this node belongs to: --initial-cluster 1={0} or --join IP:PORT")]
    NoMembership(SocketAddr),
    /// The failure domain has no usable name.
    #[error("zone: {0}")]
    Zone(String),
    /// The configuration file says two different things.
    #[error("initial_cluster and join exclude each other; keep one")]
    TwoMemberships,
    /// The node is not among those that found the cluster.
    #[error("--initial-cluster does not name node {0}; add {0}={1}, or use --join")]
    NotAmongInitial(u64, SocketAddr),
    /// The node is named with another address.
    #[error("--initial-cluster says that node {node} is at {listed}, but --addr is {addr}")]
    AddressDiffers {
        /// The node.
        node: u64,
        /// Its address among the initial nodes.
        listed: SocketAddr,
        /// Its own.
        addr: SocketAddr,
    },
    /// Two doors at one address.
    #[error("--addr or --listen, --gateway and --admin must differ, but two of them are {0}")]
    SameAddress(SocketAddr),
    /// A number is out of its range.
    #[error("{name} must be between 1 and {max}, not {value}")]
    OutOfRange {
        /// The setting.
        name: &'static str,
        /// Its largest value.
        max: u32,
        /// What was given.
        value: u32,
    },
    /// Groups cannot rest so soon, or would never.
    #[error(
        "--quiet-after must be 0, for never, or between {QUIET_SECONDS_MIN} and \
         {QUIET_SECONDS_MAX} seconds, not {0}"
    )]
    QuietAfter(u32),
    /// Not enough nodes for so many replicas.
    #[error("--replicas {0} needs at least as many nodes in --initial-cluster, which names {1}")]
    TooManyReplicas(u32, usize),
    /// A limit cannot be served.
    #[error(transparent)]
    Limits(#[from] LimitError),
}

/// The settings of a file, all optional.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    node: Option<u64>,
    dir: Option<PathBuf>,
    addr: Option<SocketAddr>,
    listen: Option<SocketAddr>,
    gateway: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    initial_cluster: Option<InitialCluster>,
    join: Option<JoinList>,
    zone: Option<String>,
    shards: Option<u32>,
    replicas: Option<u32>,
    log: Option<LogKind>,
    quiet_after: Option<u32>,
    lease_reads: Option<bool>,
    limits: Option<GatewayLimits>,
}

/// What Raft's log is kept on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// Preallocated files that are used again.
    #[default]
    Segments,
    /// One redb file.
    Redb,
}

impl LogKind {
    /// With what a node keeps of it by default.
    #[must_use]
    pub const fn medium(self) -> LogMedium {
        match self {
            Self::Segments => LogMedium::SEGMENTS,
            Self::Redb => LogMedium::REDB,
        }
    }
}

/// How a node finds its cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Membership {
    /// It founds the cluster together with these nodes, itself among them.
    Initial(BTreeMap<NodeId, SocketAddr>),
    /// It joins the cluster of these members.
    Join(Vec<SocketAddr>),
}

/// Everything that `quorate start` needs to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StartConfig {
    /// The node.
    pub node: NodeId,
    /// Where it keeps its data.
    pub dir: PathBuf,
    /// Where other nodes reach it.
    pub addr: SocketAddr,
    /// Where it listens for them.
    pub listen: SocketAddr,
    /// Its other doors.
    pub serve: ServeConfig,
    /// Its cluster.
    pub membership: Membership,
    /// The failure domain it stands in.
    pub zone: Option<String>,
    /// Shards of a new cluster.
    pub shards: u32,
    /// Replicas of each shard of a new cluster.
    pub replicas: u32,
    /// What Raft's log is kept on.
    pub log: LogKind,
    /// The seconds without use after which a group rests; zero for never.
    pub quiet_after: u32,
    /// Whether leaders read on the strength of their leases.
    pub lease_reads: bool,
    /// Whether the end of standard input ends the node.
    pub exit_with_parent: bool,
}

impl StartConfig {
    /// What flags and file amount to.
    ///
    /// # Errors
    /// [`ConfigError`], saying what to do.
    pub fn resolve(args: StartArgs) -> Result<Self, ConfigError> {
        let file = match &args.config {
            Some(path) => ConfigFile::read(path)?,
            None => ConfigFile::default(),
        };
        Self::merge(args, file)
    }

    fn merge(args: StartArgs, file: ConfigFile) -> Result<Self, ConfigError> {
        let node = args.node.or(file.node).ok_or(ConfigError::Missing("--node", "node"))?;
        let dir = args.dir.or(file.dir).ok_or(ConfigError::Missing("--dir", "dir"))?;
        let addr = args.addr.or(file.addr).ok_or(ConfigError::Missing("--addr", "addr"))?;
        let gateway = args.gateway.or(file.gateway);
        let gateway = gateway.ok_or(ConfigError::Missing("--gateway", "gateway"))?;
        let admin = args.admin.or(file.admin).unwrap_or(ADMIN_DEFAULT);
        let membership = match (args.initial_cluster, args.join) {
            // A flag replaces whatever the file says about membership.
            (None, None) => membership(file.initial_cluster, file.join, addr)?,
            (initial, join) => membership(initial, join, addr)?,
        };
        let replicas = args.replicas.or(file.replicas);
        let config = Self {
            node: NodeId(node),
            dir,
            addr,
            listen: args.listen.or(file.listen).unwrap_or(addr),
            serve: ServeConfig { gateway, admin, limits: file.limits.unwrap_or_default() },
            replicas: replicas.unwrap_or_else(|| membership.replicas_default()),
            membership,
            zone: args.zone.or(file.zone),
            shards: args.shards.or(file.shards).unwrap_or(SHARDS_DEFAULT),
            log: args.log.or(file.log).unwrap_or_default(),
            quiet_after: args.quiet_after.or(file.quiet_after).unwrap_or(QUIET_SECONDS_DEFAULT),
            lease_reads: args.lease_reads.or(file.lease_reads).unwrap_or_default(),
            exit_with_parent: args.exit_with_parent,
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.serve.limits.check()?;
        if let Some(zone) = &self.zone {
            parse_zone(zone).map_err(ConfigError::Zone)?;
        }
        check_range("--node", u32::MAX, u32::try_from(self.node.0).unwrap_or(u32::MAX))?;
        check_range("--shards", SHARDS_MAX, self.shards)?;
        check_range("--replicas", REPLICAS_MAX, self.replicas)?;
        if !matches!(self.quiet_after, 0 | QUIET_SECONDS_MIN..=QUIET_SECONDS_MAX) {
            return Err(ConfigError::QuietAfter(self.quiet_after));
        }
        self.check_doors()?;
        let Membership::Initial(nodes) = &self.membership else {
            return Ok(());
        };
        if u32::try_from(nodes.len()).is_ok_and(|count| count < self.replicas) {
            return Err(ConfigError::TooManyReplicas(self.replicas, nodes.len()));
        }
        match nodes.get(&self.node) {
            None => Err(ConfigError::NotAmongInitial(self.node.0, self.addr)),
            Some(&listed) if listed != self.addr => {
                Err(ConfigError::AddressDiffers { node: self.node.0, listed, addr: self.addr })
            }
            Some(_) => Ok(()),
        }
    }

    /// What Raft's host is told of it.
    pub fn tune(&self, raft: &mut HostConfig) {
        let seconds = u64::from(self.quiet_after);
        raft.quiet_after = (seconds > 0).then(|| Duration::from_secs(seconds));
        raft.lease_reads = self.lease_reads;
    }

    /// Nodes, clients and operators must not meet at one door, neither where
    /// this node listens nor where others look for it.
    fn check_doors(&self) -> Result<(), ConfigError> {
        for for_nodes in [self.addr, self.listen] {
            let mut seen = BTreeSet::new();
            for address in [for_nodes, self.serve.gateway, self.serve.admin] {
                // Port 0 is a different free port each time.
                if address.port() != 0 && !seen.insert(address) {
                    return Err(ConfigError::SameAddress(address));
                }
            }
        }
        Ok(())
    }
}

impl Membership {
    fn replicas_default(&self) -> u32 {
        match self {
            Self::Initial(nodes) => {
                u32::try_from(nodes.len()).map_or(REPLICAS_DEFAULT, |n| n.min(REPLICAS_DEFAULT))
            }
            Self::Join(_) => REPLICAS_DEFAULT,
        }
    }
}

fn check_range(name: &'static str, max: u32, value: u32) -> Result<(), ConfigError> {
    match (1..=max).contains(&value) {
        true => Ok(()),
        false => Err(ConfigError::OutOfRange { name, max, value }),
    }
}

fn membership(
    initial: Option<InitialCluster>,
    join: Option<JoinList>,
    addr: SocketAddr,
) -> Result<Membership, ConfigError> {
    match (initial, join) {
        (Some(initial), None) => Ok(Membership::Initial(initial.0)),
        (None, Some(join)) => Ok(Membership::Join(join.0)),
        (None, None) => Err(ConfigError::NoMembership(addr)),
        (Some(_), Some(_)) => Err(ConfigError::TwoMemberships),
    }
}

impl ConfigFile {
    fn read(path: &std::path::Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(read)?.len() > FILE_BYTES_MAX {
            return Err(ConfigError::TooLong(path.to_owned()));
        }
        let text = std::fs::read_to_string(path).map_err(read)?;
        toml::from_str(&text).map_err(|error| ConfigError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }
}

/// `1=127.0.0.1:7101,2=127.0.0.1:7102`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct InitialCluster(BTreeMap<NodeId, SocketAddr>);

impl FromStr for InitialCluster {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut nodes = BTreeMap::new();
        let mut addresses = BTreeSet::new();
        for entry in text.split(',') {
            let (node, address) = entry.trim().split_once('=').ok_or_else(|| {
                format!("'{entry}' names no node; write N=IP:PORT, for example 1=127.0.0.1:7101")
            })?;
            let node = node.parse().ok().filter(|node| *node > 0).ok_or_else(|| {
                format!("'{node}' is not a node's number; numbers are positive, for example 1")
            })?;
            let address = parse_address(address)?;
            if nodes.insert(NodeId(node), address).is_some() {
                return Err(format!("node {node} is named twice"));
            }
            if !addresses.insert(address) {
                return Err(format!("{address} is named for two nodes"));
            }
        }
        Ok(Self(nodes))
    }
}

impl TryFrom<String> for InitialCluster {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for InitialCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (node, address)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}={address}", node.0)?;
        }
        Ok(())
    }
}

impl FromIterator<(NodeId, SocketAddr)> for InitialCluster {
    fn from_iter<I: IntoIterator<Item = (NodeId, SocketAddr)>>(nodes: I) -> Self {
        Self(nodes.into_iter().collect())
    }
}

/// `127.0.0.1:7101,127.0.0.1:7102`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct JoinList(Vec<SocketAddr>);

impl FromStr for JoinList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let addresses = text.split(',').map(|address| parse_address(address.trim()));
        Ok(Self(addresses.collect::<Result<_, _>>()?))
    }
}

impl TryFrom<String> for JoinList {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
