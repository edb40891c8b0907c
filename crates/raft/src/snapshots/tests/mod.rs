#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod pace;
mod receiving;
mod transfers;

use crate::consensus::tests::support;
