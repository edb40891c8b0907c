#![doc = include_str!("../README.md")]

mod birth;
mod bootstrap;
mod client;
mod command;
mod coordinator;
mod directory;
mod driver;
mod error;
mod groups;
mod identity;
mod initial;
mod invariants;
mod journal;
pub mod limits;
mod machine;
mod membership;
mod moves;
mod nodes;
mod operators;
mod plans;
mod ports;
mod registry;
mod reply;
mod rows;
mod settings;
mod shards;
mod splits;
mod view;
mod welcome;
mod wire;

pub use birth::{Birth, Founding};
pub use bootstrap::{Bootstrap, metadata_replicas};
pub use client::{AdminError, MetadataClient};
pub use command::{COMMAND_VERSION, Command};
pub use coordinator::Effects;
pub use directory::Directory;
pub use driver::{Cut, Ordered, Splitting};
pub use error::{MetaError, Violation};
pub use groups::{
    METADATA_GROUP, Origin, Replica, ReplicaGroup, RetiredReplica, Role, SEQUENCER_GROUP,
    SHARD_GROUPS_START, shard_group, shard_of,
};
pub use identity::{Identity, IdentityError, IdentityFile};
pub use initial::{InitialCluster, InitialFlaw};
pub use journal::{JournalRow, JournalWrite};
pub use machine::{OnChange, RegistryMachine};
pub use membership::{Membership, MembershipConfig, MembershipError};
pub use moves::{BeginMove, Move, ReplicaChange};
pub use nodes::{CLUSTER_VERSION, Label, Node, NodeSpec, NodeState, ZONE_LABEL};
pub use operators::{Operator, OperatorState, Task};
pub use ports::{BoxError, Host, LocalReplica, Mutations, Page, Peers, ProposeError, Rows};
pub use registry::{Applied, Mutation, Registry};
pub use reply::{BootstrapFlaw, Limited, Refusal, Reply};
pub use settings::{SettingValue, TARGET_REPLICAS};
pub use shards::{Lineage, Shard};
pub use splits::{BeginSplit, ChildReplica, CutRefusal, Split, SplitPhase};
pub use view::ClusterView;
pub use wire::{Request, Response};
