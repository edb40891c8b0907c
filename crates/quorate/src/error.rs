//! Why a node does not start or an operation is not carried out.

use std::io;

pub use quorate_meta::AdminError;
use quorate_meta::{IdentityError, MembershipError};

/// A node could not start, or an administrative operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The directory cannot be used; for instance another process holds it.
    #[error("the node's directory cannot be used: {0}")]
    Disk(#[source] io::Error),
    /// The directory cannot be used under this node's id.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The cluster refuses this node.
    #[error("the cluster refuses this node: {0}")]
    Refused(String),
    /// A layer failed to start.
    #[error("{layer} failed to start: {source}")]
    Layer {
        /// Which.
        layer: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl NodeError {
    pub(crate) fn layer(
        layer: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Layer { layer, source: source.into() }
    }
}

impl From<MembershipError> for NodeError {
    fn from(error: MembershipError) -> Self {
        match error {
            MembershipError::Refused(reason) => Self::Refused(reason),
            MembershipError::Identity(error) => Self::Identity(error),
            other => Self::layer("metadata", other),
        }
    }
}
