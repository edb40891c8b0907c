#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod history;
mod observe;
mod operator;
mod plan;
mod policy;
pub mod safety;
mod scheduler;
mod view;

pub use error::{PlacementError, Refused};
pub use history::{Balancing, History, InFlight, OperatorId, PAST_ENTRIES_MAX};
pub use observe::{RateMeter, ReplicaReport, Silences};
pub use operator::{
    Blocked, Group, Obstacle, Operator, Plan, Precondition, Proposal, Reason, Tier,
};
pub use plan::plan;
pub use policy::{
    CostModel, DiskPolicy, LexicographicPolicy, Limits, MergePolicy, PlacementPolicy, Policy,
    SplitPolicy,
};
pub use scheduler::{
    Action, Authority, CheckedProposer, ClusterSource, Executor, Proposer, Scheduler,
    SchedulerConfig, SchedulerCore, SchedulerHandle, SchedulerStatus,
};
pub use view::{ClusterView, Members, NodeState, NodeView, ShardView, SystemGroupView};
