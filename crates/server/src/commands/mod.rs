//! What a request means: its words become a [`Command`], and what a command
//! does to data becomes a [`Program`] of [`Op`]s with its footprint.

#[cfg(test)]
mod fuzz;
mod glob;
mod key;
mod number;
mod op;
mod parse;
mod program;
mod set;
mod table;

pub(crate) use glob::glob_matches;
pub(crate) use key::{KEY_PREFIX_BYTES, slot_of};
pub use key::{SLOTS, partition_key, slot_start, unpartition_key};
pub(crate) use number::parse_integer;
pub use op::{Condition, ExpireCondition, Expiry, Op, SetReply, TimeUnit};
pub(crate) use parse::{Command, Hello, Local, ParseError, ScanRequest, client_name};
pub use program::{Program, ProgramError, Watch};
pub(crate) use table::{CommandSpec, commands, lookup};
