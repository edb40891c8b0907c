//! The reply gate (rule 11): no reply leaves before the watermark covers its
//! position (invariant v).

use std::time::Duration;

use quorate_types::fault::IS_SIMULATED;
use quorate_types::{Epoch, sometimes, watch};
use tokio::time::Instant;

use crate::sequencer::Watermarks;

/// What a node knows of the order, and the gate that waits for it.
#[derive(Debug)]
pub struct ReplyGate {
    marks: watch::Sender<Watermarks>,
}

impl Default for ReplyGate {
    fn default() -> Self {
        Self::new()
    }
}

impl ReplyGate {
    /// A gate that knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (marks, _) = watch::channel(Watermarks::default());
        Self { marks }
    }

    /// Takes in facts; late and doubled ones change nothing.
    pub fn learn(&self, marks: Watermarks) {
        self.marks.modify(|known| {
            let merged = known.max(marks);
            sometimes!("watermarks come behind what is known", merged != marks);
            let is_news = merged != *known;
            *known = merged;
            is_news
        });
    }

    /// What is known.
    #[must_use]
    pub fn known(&self) -> Watermarks {
        *self.marks.borrow()
    }

    /// Whether a reply of this position may leave now.
    #[must_use]
    pub fn covers(&self, position: Epoch) -> bool {
        self.marks.borrow().logged >= position
    }

    /// Waits until a reply of this position may leave.
    pub async fn pass(&self, position: Epoch) {
        if self.covers(position) {
            return;
        }
        let began = IS_SIMULATED.then(Instant::now);
        let mut marks = self.marks.subscribe();
        // The sender lives in `self`, so the wait cannot end otherwise.
        let _ = marks.wait_for(|known| known.logged >= position).await;
        let is_long = |began: Instant| began.elapsed() >= Duration::from_secs(1);
        sometimes!("the reply gate holds a reply back");
        sometimes!("the reply gate holds a reply for a second", began.is_some_and(is_long));
    }
}
