//! The suites of this crate's ports: what is sound passes, and what is not is
//! refused with the sentence that it breaks. A suite that finds no planted flaw
//! proves nothing.

mod clock;
mod disk;
mod group_log;
mod state;
