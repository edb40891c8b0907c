//! What the metadata's leader does besides answering: it has the map told to
//! everybody and the operators carried out.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use quorate_types::runtime::BoxFuture;

use crate::client::{AdminError, MetadataClient};
use crate::driver::Splitting;
use crate::operators::{Operator, Task};
use crate::view::ClusterView;

/// How often the coordinator looks while the metadata does not change.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What coordination brings about outside of the metadata (port).
pub trait Effects: Splitting + 'static {
    /// Notes in which term this node coordinates now, if it does.
    fn coordinates(&self, term: Option<u64>);

    /// Tells every node the map of this view, fenced by the view's version.
    fn publish(&self, view: &ClusterView);

    /// Begins to carry a planned move out, unless that was begun before.
    ///
    /// # Errors
    /// [`AdminError`]; it is asked again.
    fn begin_move(self: Arc<Self>, operator: Operator) -> BoxFuture<Result<(), AdminError>>;
}

impl MetadataClient {
    /// Coordinates while this node leads the metadata group, and keeps up with
    /// whoever does while it does not. Ends when `effects` are gone; every step
    /// may be cut off and is repeated by the next look, here or elsewhere.
    pub async fn coordinate<E: Effects>(&self, effects: Weak<E>) {
        let mut views = self.directory().views();
        while let Some(present) = effects.upgrade() {
            self.look(present).await;
            tokio::select! {
                biased;
                _ = views.changed() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    async fn look<E: Effects>(&self, effects: Arc<E>) {
        let authority = self.authority();
        effects.coordinates(authority);
        if authority.is_none() {
            self.refresh().await;
            return;
        }
        let view = self.directory().view();
        effects.publish(&view);
        // Whoever waits for a group does so beside the others that do.
        let (waiting, busy): (Vec<_>, Vec<_>) =
            view.running_operators().partition(|operator| operator.is_installed());
        for operator in busy {
            self.carry_out(operator, &effects).await;
        }
        join_all(waiting.into_iter().map(|operator| self.carry_out(operator, &effects))).await;
    }

    async fn carry_out<E: Effects>(&self, operator: &Operator, effects: &Arc<E>) {
        let advanced = match &operator.task {
            Task::Split(_) => self.advance_split(operator.id, &**effects).await,
            Task::Move(_) => Arc::clone(effects).begin_move(operator.clone()).await,
        };
        if let Err(error) = advanced {
            tracing::debug!(operator = %operator.id, %error, "an operator waits");
        }
    }
}
