use super::*;

const AFTER: u64 = 100;
const KEEPS: u64 = 10;

/// A log that was flushed up to the entry before `applied`, if not all.
fn reach(applied: u64, purged: u64) -> Reach {
    Reach { applied, flushed: applied.saturating_sub(1), purged, bytes: None }
}

/// A log of which `applied` entries were applied when a purge was asked for.
fn asked_at(applied: u64) -> (Purging, Instant) {
    let (mut purging, now) = (Purging::new(AFTER, KEEPS), Instant::now());
    assert!(purging.is_due(reach(applied, 0), now), "due for the first time");
    purging.is_asked_for(reach(applied, 0), now);
    (purging, now)
}

#[test]
fn a_log_is_purged_once_it_is_longer_than_it_should_be() {
    let (purging, now) = (Purging::new(AFTER, KEEPS), Instant::now());
    assert!(!purging.is_due(reach(AFTER, 0), now));
    assert!(purging.is_due(reach(AFTER + 1, 0), now));
    assert!(!purging.is_due(reach(AFTER + 1, 1), now));
    assert_eq!(purging.ask_again_at(reach(AFTER + 1, 0)), None, "nothing was asked for yet");
}

#[test]
fn a_busy_log_asks_again_after_half_as_many_entries() {
    let (purging, now) = asked_at(101);
    assert!(!purging.is_due(reach(102, 0), now), "the purge is under way");
    assert!(!purging.is_due(reach(150, 0), now));
    assert!(purging.is_due(reach(151, 0), now));
    assert!(!purging.is_due(reach(151, 101 - KEEPS), now), "it was purged meanwhile");
}

#[test]
fn a_busy_log_asks_no_more_often_than_once_in_a_pause() {
    const PAUSE: Duration = Duration::from_secs(2);
    let (purging, now) = asked_at(101);
    let waits = Waits { entries: 1_000, bytes: 1_000 };
    let purging = purging.pausing(PAUSE).waiting(waits);
    let purged = |applied| reach(applied, 101 - KEEPS);
    assert_eq!(purging.ask_again_at(purged(150)), None, "it is no longer long");
    assert!(!purging.is_due(purged(500), now));
    assert!(!purging.is_due(purged(500), now + PAUSE - Duration::from_millis(1)));
    assert_eq!(purging.ask_again_at(purged(500)), Some(now + PAUSE), "if nothing more comes");
    assert!(purging.is_due(purged(500), now + PAUSE));
    assert!(purging.is_due(purged(1_092), now), "too long to wait");
    let heavy = Reach { bytes: Some(1_001), ..purged(500) };
    assert!(purging.is_due(heavy, now), "too large to wait");
}

#[test]
fn a_quiet_log_asks_again_after_a_while() {
    let (purging, now) = asked_at(101);
    assert_eq!(purging.ask_again_at(reach(102, 0)), Some(now + RETRY));
    assert!(!purging.is_due(reach(102, 0), now + RETRY - Duration::from_millis(1)));
    assert!(purging.is_due(reach(102, 0), now + RETRY));
}

#[test]
fn a_log_that_is_used_no_more_is_purged_before_it_is_long() {
    const MOST: u64 = KEEPS + AFTER / 4;
    let (mut purging, now) = (Purging::new(AFTER, KEEPS), Instant::now());
    purging.learn(reach(MOST, 0), now);
    assert_eq!(purging.ask_again_at(reach(MOST, 0)), None, "it has little more than is left");
    let log = reach(MOST + 1, 0);
    purging.learn(log, now);
    assert_eq!(purging.ask_again_at(log), Some(now + QUIET));
    assert!(!purging.is_due(log, now));
    let later = now + Duration::from_secs(1);
    purging.learn(reach(MOST + 2, 0), later);
    assert!(!purging.is_due(reach(MOST + 2, 0), now + QUIET), "something came");
    assert!(purging.is_due(reach(MOST + 2, 0), later + QUIET));
    let flushed = Reach { flushed: MOST + 2, ..reach(MOST + 2, 0) };
    assert!(!purging.is_due(flushed, later + QUIET), "it was flushed as it is");
    let waits = Waits { entries: 1_000, bytes: 1_000 };
    let waiting = Purging::new(AFTER, KEEPS).waiting(waits);
    assert_eq!(waiting.waits_until(reach(MOST + 2, 0), later), None, "no purge is near");
    let (mut waiting, at) = (waiting, later);
    waiting.learn(reach(MOST + 2, 0), at);
    assert_eq!(waiting.waits_until(reach(MOST + 2, 0), at), Some(at + RETRY));
    purging.is_asked_for(reach(MOST + 2, 0), later + QUIET);
    assert_eq!(purging.ask_again_at(reach(MOST + 2, 0)), None, "asked for once");
    purging.learn(reach(MOST + 3, 0), later + 2 * QUIET);
    assert_eq!(purging.ask_again_at(reach(MOST + 3, 0)), Some(later + 3 * QUIET));
}

#[test]
fn logs_that_became_quiet_at_once_are_purged_one_after_the_other() {
    let now = Instant::now();
    let mut moments: Vec<Instant> = (0..100)
        .map(|group| {
            let mut purging = Purging::new(AFTER, KEEPS).of(GroupId(group));
            purging.learn(reach(AFTER, 0), now);
            purging.ask_again_at(reach(AFTER, 0)).unwrap()
        })
        .collect();
    moments.sort();
    assert!(now + QUIET <= moments[0] && moments[99] <= now + 2 * QUIET);
    let pauses = moments.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(pauses.max().unwrap() < Duration::from_secs(3));
}

#[test]
fn the_same_flush_is_asked_for_no_second_time() {
    let (purging, now) = asked_at(101);
    let flushed = Reach { flushed: 101, ..reach(101, 0) };
    assert_eq!(purging.ask_again_at(flushed), None);
    assert!(!purging.is_due(flushed, now + 2 * RETRY));
    let dropped = Reach { flushed: 90, ..flushed };
    assert!(purging.is_due(dropped, now + RETRY), "asked for while another was under way");
}

#[test]
fn a_purge_that_went_well_is_not_asked_for_again() {
    let (purging, now) = asked_at(101);
    let purged = reach(110, 101 - KEEPS);
    assert_eq!(purging.ask_again_at(purged), None);
    assert!(!purging.is_due(purged, now + 2 * RETRY));
}

#[test]
fn a_log_that_keeps_more_than_makes_a_purge_due_does_not_ask_for_ever() {
    let (mut purging, now) = (Purging::new(AFTER, 3 * AFTER), Instant::now());
    purging.is_asked_for(reach(500, 0), now);
    assert_eq!(purging.ask_again_at(reach(510, 500 - 3 * AFTER)), None, "as a purge leaves it");
    assert_eq!(purging.ask_again_at(reach(510, 199)), Some(now + RETRY));
}

#[test]
fn a_long_log_waits_for_a_snapshot_on_its_way_until_it_is_too_long() {
    let waits = Waits { entries: 5 * AFTER, bytes: 1_000 };
    let (purging, now) = (Purging::new(AFTER, KEEPS).waiting(waits), Instant::now());
    assert_eq!(purging.waits_until(reach(AFTER, 0), now), None, "it is not long");
    assert_eq!(purging.waits_until(reach(AFTER + 1, 0), now), Some(now + RETRY));
    assert_eq!(purging.waits_until(reach(5 * AFTER, 0), now), Some(now + RETRY));
    assert_eq!(purging.waits_until(reach(5 * AFTER + 1, 0), now), None);
    let of_bytes = |bytes| Reach { bytes: Some(bytes), ..reach(2 * AFTER, 0) };
    assert_eq!(purging.waits_until(of_bytes(1_000), now), Some(now + RETRY));
    assert_eq!(purging.waits_until(of_bytes(1_001), now), None);
}

#[test]
fn nobody_is_given_up_for_what_is_not_going_to_be_purged() {
    let waits = Waits { entries: 5 * AFTER, bytes: 1_000 };
    let (mut purging, now) = (Purging::new(AFTER, KEEPS).waiting(waits), Instant::now());
    let at = |applied, flushed| Reach { applied, flushed, purged: 0, bytes: None };
    assert_eq!(purging.gives_up(at(900, 700)), None, "nothing was asked for");
    purging.is_asked_for(at(900, 700), now);
    assert_eq!(purging.gives_up(at(910, 700)), None, "it is not flushed yet");
    let lacks_max = KEEPS + AFTER / 2;
    assert_eq!(purging.gives_up(at(950, 905)), Some(905 - lacks_max), "by the flush");
    let short = Reach { purged: 900, ..at(950, 905) };
    assert_eq!(purging.gives_up(short), None, "it was purged");
    let of_bytes = |bytes| Reach { bytes: Some(bytes), ..at(900, 890) };
    assert_eq!(purging.gives_up(Reach { purged: 500, ..of_bytes(1_000) }), None);
    let heavy = Reach { purged: 500, ..of_bytes(1_001) };
    assert_eq!(purging.gives_up(heavy), Some(890 - lacks_max));
    // As after a start: the machine is where it was flushed to, and a flush of the
    // same state has nothing purged.
    purging.is_asked_for(at(900, 900), now);
    assert_eq!(purging.gives_up(at(900, 900)), None);
}

#[test]
fn a_purge_after_no_entry_is_one_after_each() {
    assert!(Purging::new(0, 0).is_due(reach(2, 0), Instant::now()));
    assert!(!Purging::new(0, 0).is_due(reach(2, 1), Instant::now()));
}
