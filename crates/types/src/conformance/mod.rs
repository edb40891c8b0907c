//! What every implementation of this crate's ports must do, as suites to run
//! against one's own.
//!
//! A suite panics where the implementation is wrong, with the sentence of the
//! port that it breaks. It knows nothing of ours.
//!
//! | port | the one line |
//! |---|---|
//! | [`Disk`](crate::disk::Disk) | `disk_suite(\|\| Arc::new(MyDisk::new()))` |
//! | the same, if it can lose power | `durable_disk_suite(MyDisk::new, MyDisk::lose_power)` |
//! | [`GroupLog`](crate::group_log::GroupLog) | `group_log_suite(\|\| my_replicas_of_a_new_group()).await` |
//! | [`State`](crate::anti_entropy::State) | `state_suite(MyState::of_node, MyState::write_number)` |
//! | [`Clock`](crate::env::Clock) | `clock_suite(&my_clock, \|\| set_the_time_of_day_back()).await` |
//!
//! A [`GroupMachine`](crate::group_log::GroupMachine) is proved by the suite
//! for state machines of whoever hosts it. A [`Runtime`](crate::runtime::Runtime)
//! promises that a seed's run can be had again, and an [`Rng`](crate::env::Rng)
//! that its numbers follow from a seed: two runs prove it, not a suite.

mod clock;
mod disk;
mod group_log;
mod state;

pub use clock::clock_suite;
pub use disk::{disk_file_suite, disk_suite, durable_disk_suite};
pub use group_log::{Replica, group_log_suite};
pub use state::state_suite;
