//! Which named places of the code a simulation has been to.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// How often something happened at a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteCounts {
    /// It was reached.
    pub reached: u64,
    /// A fault was injected there.
    pub fired: u64,
}

/// A register of named places, and of how often each was reached and made to
/// fail. One per run, shared by all its nodes; clones are the same register.
#[derive(Debug, Clone, Default)]
pub struct Coverage {
    sites: Arc<Mutex<BTreeMap<String, SiteCounts>>>,
}

impl Coverage {
    /// Notes that a place was reached.
    pub fn reach(&self, site: &'static str) {
        self.count(site, |counts| counts.reached += 1);
    }

    /// Notes that a fault was injected at a place.
    pub fn fired(&self, site: &'static str) {
        self.count(site, |counts| counts.fired += 1);
    }

    /// The counts of every place that was reached or failed, by name.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<String, SiteCounts> {
        self.sites.lock().clone()
    }

    /// Adds what other runs have counted.
    pub fn merge(&self, counts: &BTreeMap<String, SiteCounts>) {
        let mut sites = self.sites.lock();
        for (site, more) in counts {
            let counts = sites.entry(site.clone()).or_default();
            counts.reached += more.reached;
            counts.fired += more.fired;
        }
    }

    /// Those of `sites` that were never reached, in the order given.
    #[must_use]
    pub fn never_reached<'a>(&self, sites: &[&'a str]) -> Vec<&'a str> {
        let counts = self.sites.lock();
        let is_missed = |site: &&str| counts.get(*site).is_none_or(|counts| counts.reached == 0);
        sites.iter().copied().filter(is_missed).collect()
    }

    fn count(&self, site: &str, change: impl FnOnce(&mut SiteCounts)) {
        let mut sites = self.sites.lock();
        // The name is copied when it is new, and not each time.
        match sites.get_mut(site) {
            Some(counts) => change(counts),
            None => change(sites.entry(site.to_owned()).or_default()),
        }
    }
}
