//! Why a node does not start or an operation is not carried out.

use std::io;

pub use quorate_meta::AdminError;
use quorate_meta::{IdentityError, MembershipError};
use quorate_types::GroupId;

use crate::builder::{ENGINE_FILE, LOG};

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
    #[error("cannot listen on {address}: {source}; choose another, or end who has it")]
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
    /// A store cannot be opened.
    #[error("{file} cannot be used: {causes}")]
    Store {
        /// Its file.
        file: String,
        /// What is wrong with it, why, and what to do.
        causes: String,
    },
    /// A replica has stopped for good, so that it cannot answer wrongly.
    #[error("{group} has halted and the node stops: {reason}")]
    Halted {
        /// The replica's group.
        group: GroupId,
        /// Why.
        reason: String,
    },
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
    pub(crate) fn store(file: &str, error: &dyn std::error::Error) -> Self {
        let first = Some(error);
        let causes = std::iter::successors(first, |error| error.source()).map(ToString::to_string);
        let mut causes: Vec<String> = causes.collect();
        causes.dedup_by(|cause, error| error.ends_with(cause.as_str()));
        let advice = match file {
            LOG | ENGINE_FILE => {
                "; if it is damaged, join with an empty directory under a new id and drain this \
                 one (an old copy of the directory has forgotten what it promised)"
            }
            _ => "; if it is damaged, delete it: it is a copy of what the metadata knows",
        };
        Self::Store { file: file.to_owned(), causes: causes.join(": ") + advice }
    }

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
