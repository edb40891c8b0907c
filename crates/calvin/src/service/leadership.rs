//! Waiting while a term lasts.

use quorate_types::watch;

use crate::ports::Leadership;

/// Resolves when the replica no longer leads in `term`.
pub(super) async fn lost(leadership: &mut watch::Receiver<Leadership>, term: u64) {
    // A closed watch means that the group is gone, and leadership with it.
    let _ = leadership.wait_for(|now| !now.leads || now.term != term).await;
}

/// Runs `work` while the replica leads in `term`; `None` once it does not.
pub(super) async fn while_leading<T>(
    leadership: &watch::Receiver<Leadership>,
    term: u64,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut leadership = leadership.clone();
    tokio::select! {
        biased;
        () = lost(&mut leadership, term) => None,
        value = work => Some(value),
    }
}
