//! What a group has to reach beside bare openraft.

use quorate_benches::Bar;

use crate::options::Options;

/// The bar of commands per second, where clients and threads are those it is about.
pub(crate) fn writing(options: &Options) -> Option<Bar> {
    let Options { clients, member_threads, client_threads, .. } = options;
    let is_meant = (*clients, *member_threads, *client_threads) == (256, 16, 1);
    is_meant.then_some(Bar::at_least(0.9, "x openraft"))
}
