//! Why a node does not start or an operation is not carried out.

use std::io;

use quorate_meta::IdentityError;

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

/// Why an administrative operation was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It makes no sense now; the text says why.
    #[error("{0}")]
    Refused(String),
    /// It may be tried again.
    #[error("{0}; try again")]
    Unavailable(String),
}
