//! The operator's view: a port to the cluster and the HTTP interface over it.

mod describe;
mod http;
mod port;

pub(crate) use describe::{
    ADMIN_LABEL, GATEWAY_LABEL, check_drain, migrations, nodes, shard, shards_led,
};
pub use http::{ADMIN_BODY_BYTES_MAX, router, serve};
pub use port::{
    Admin, AdminError, AdminFuture, DrainStatus, MigrationInfo, MoveRequest, NodeInfo, Operation,
    ReplicaInfo, ShardInfo, SplitRequest, StatusInfo, TransferRequest,
};
