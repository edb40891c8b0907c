#![doc = include_str!("../README.md")]

mod bootstrap;
mod command;
mod error;
mod groups;
mod invariants;
mod journal;
pub mod limits;
mod moves;
mod nodes;
mod operators;
mod plans;
mod registry;
mod reply;
mod rows;
mod settings;
mod shards;
mod splits;
mod view;
mod welcome;

pub use bootstrap::{Bootstrap, metadata_replicas};
pub use command::{COMMAND_VERSION, Command};
pub use error::{MetaError, Violation};
pub use groups::{
    METADATA_GROUP, Origin, Replica, ReplicaGroup, RetiredReplica, Role, SEQUENCER_GROUP,
    SHARD_GROUPS_START, shard_group, shard_of,
};
pub use journal::{JournalRow, JournalWrite};
pub use moves::{BeginMove, Move, ReplicaChange};
pub use nodes::{Label, Node, NodeSpec, NodeState, ZONE_LABEL};
pub use operators::{Operator, OperatorState, Task};
pub use registry::{Applied, Mutation, Registry};
pub use reply::{BootstrapFlaw, Limited, Refusal, Reply};
pub use settings::{SettingValue, TARGET_REPLICAS};
pub use shards::{Lineage, Shard};
pub use splits::{BeginSplit, ChildReplica, Split, SplitPhase};
pub use view::ClusterView;
