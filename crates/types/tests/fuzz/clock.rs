//! The hybrid clock, whatever time does and peers claim.

use quorate_testkit::fuzz::{Choices, Corpus};
use quorate_types::hlc::{AHEAD_MILLIS_MAX, HlcClock};
use quorate_types::{Hlc, NodeId};

/// Beyond it a timestamp could not rise any more: 146 million years.
const TIME_MILLIS_MAX: u64 = 1 << 62;

const NODE: NodeId = NodeId(1);

#[test]
fn timestamps_rise_through_jumps_claims_and_restarts() {
    quorate_testkit::fuzz!(Corpus::random(600), |input| {
        let mut choices = Choices::new(input);
        let mut clock = HlcClock::new(NODE, 0);
        let (mut now_millis, mut kept_millis) = (1 << 40, 0);
        let (mut last, mut born_millis) = (Hlc::default(), 0);
        while !choices.is_spent() {
            match choices.below(5) {
                0 => now_millis = choices.edge() % TIME_MILLIS_MAX,
                1 => {
                    let node = NodeId(choices.edge());
                    let (millis, counter) = (choices.edge(), choices.edge() as u32);
                    clock.observe(Hlc { millis, counter, node });
                }
                // The process dies; the next life has what was kept.
                2 => {
                    clock = HlcClock::new(NODE, kept_millis);
                    born_millis = kept_millis;
                }
                _ => {
                    // As a writer does: what is drawn lies below a kept mark.
                    kept_millis = clock.reserve(now_millis).max(kept_millis);
                    let drawn = clock.tick(now_millis);
                    assert!(drawn > last, "{drawn:?} after {last:?}");
                    assert!(drawn.millis <= kept_millis);
                    // Higher only where an earlier one or an earlier life was.
                    let highest = now_millis.saturating_add(AHEAD_MILLIS_MAX);
                    let bound = highest.max(last.millis + 1).max(born_millis + 1);
                    assert!(drawn.millis <= bound, "{drawn:?} at {now_millis}");
                    last = drawn;
                }
            }
        }
    });
}
