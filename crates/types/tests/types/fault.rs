//! Hooks that ask a simulation, and nobody else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quorate_types::fault::{Canary, HAS_CANARIES, IS_SIMULATED};
use quorate_types::runtime::{self, Runtime};
use quorate_types::{buggify, planted, sometimes};
use tokio::task::AbortHandle;

/// Takes every branch, has one bug, and remembers what it was asked.
#[derive(Default)]
struct Stumbling {
    asked: Mutex<Vec<&'static str>>,
    reached: Mutex<Vec<&'static str>>,
}

impl Runtime for Stumbling {
    fn spawned(&self, _task: AbortHandle) {}

    fn random(&self) -> u64 {
        0
    }

    fn sync_delay(&self) -> Duration {
        Duration::ZERO
    }

    fn buggify(&self, site: &'static str) -> bool {
        self.asked.lock().push(site);
        true
    }

    fn reached(&self, site: &'static str) {
        self.reached.lock().push(site);
    }

    fn canary(&self) -> Option<Canary> {
        Some(Canary::LockReleasedEarly)
    }
}

#[test]
fn every_canary_has_a_name_of_its_own() {
    let names: BTreeSet<&str> = Canary::ALL.into_iter().map(Canary::name).collect();
    assert_eq!(names.len(), Canary::ALL.len());
    for canary in Canary::ALL {
        assert_eq!(Canary::from_name(canary.name()), Some(canary));
    }
    assert_eq!(Canary::from_name("no-such-bug"), None);
}

#[test]
fn nothing_stumbles_outside_of_a_simulation() {
    sometimes!("test outside");
    assert!(!buggify!("test outside branch"));
    for canary in Canary::ALL {
        assert!(!quorate_types::fault::is_planted(canary));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_simulation_is_asked_where_the_build_has_the_hooks() {
    let stumbling = Arc::new(Stumbling::default());
    let (branch, early, late) = runtime::scope(Arc::clone(&stumbling) as Arc<dyn Runtime>, async {
        sometimes!("test reached");
        sometimes!("test not reached", 1 > 2);
        (buggify!("test branch"), planted!(LockReleasedEarly), planted!(SliceLost))
    })
    .await;
    assert_eq!(branch, IS_SIMULATED);
    assert_eq!(early, HAS_CANARIES);
    assert!(!late, "another bug is planted");
    let expected = |site: &'static str| if IS_SIMULATED { vec![site] } else { Vec::new() };
    assert_eq!(*stumbling.asked.lock(), expected("test branch"));
    assert_eq!(*stumbling.reached.lock(), expected("test reached"));
}
