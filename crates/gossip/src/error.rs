//! What can be wrong from the start. Once running, nothing from outside is an
//! error: it is counted ([`crate::Stats`]) and left behind.

use crate::wire::ADDRESS_BYTES_MAX;

/// Why a node cannot take part.
#[derive(Debug, thiserror::Error)]
pub enum GossipError {
    /// The own address is empty or too long to be told to others.
    #[error("an address must have 1 to {ADDRESS_BYTES_MAX} bytes, this one has {0}")]
    Address(usize),
    /// The incarnation leaves no room for refutations; take a boot counter or
    /// milliseconds since 1970.
    #[error("incarnation {0} is beyond what peers believe")]
    Incarnation(u64),
    /// A setting contradicts itself; the text names it.
    #[error("configuration: {0}")]
    Config(&'static str),
}
