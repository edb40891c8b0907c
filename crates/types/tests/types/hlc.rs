//! Timestamps are totally ordered, never go back, and stay near the clock.

use proptest::collection::vec;
use proptest::prelude::*;
use quorate_types::hlc::{AHEAD_MILLIS_MAX, DRIFT_MILLIS_MAX, HIGH_WATER_WINDOW_MILLIS, HlcClock};
use quorate_types::{Hlc, NodeId};

const NODE: NodeId = NodeId(3);

const fn at(millis: u64, counter: u32, node: u64) -> Hlc {
    Hlc { millis, counter, node: NodeId(node) }
}

#[derive(Clone, Debug)]
enum Step {
    Tick(u64),
    Observe(Hlc),
    Restart,
}

fn millis() -> impl Strategy<Value = u64> {
    prop_oneof![0..30_000_u64, Just(u64::MAX), Just(u64::MAX - AHEAD_MILLIS_MAX)]
}

fn step() -> impl Strategy<Value = Step> {
    let counter = prop_oneof![0..3_u32, Just(u32::MAX)];
    prop_oneof![
        4 => (0..30_000_u64).prop_map(Step::Tick),
        2 => (millis(), counter, 0..5_u64).prop_map(|(m, c, n)| Step::Observe(at(m, c, n))),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Against a clock that jumps both ways, peers that send anything, and
    /// restarts that know the persisted mark only.
    #[test]
    fn ticks_rise_and_stay_within_the_bound_or_the_mark(steps in vec(step(), 1..60)) {
        let mut clock = HlcClock::new(NODE, 0);
        let mut last = Hlc::default();
        for step in steps {
            match step {
                Step::Tick(now) => {
                    let bound = (now + AHEAD_MILLIS_MAX).max(clock.high_water());
                    let drawn = clock.tick(now);
                    prop_assert!(drawn > last, "{drawn:?} after {last:?}");
                    prop_assert!(drawn.millis >= now && drawn.millis <= bound, "{drawn:?} at {now}");
                    prop_assert!(drawn.millis < clock.high_water());
                    prop_assert_eq!(drawn.node, NODE);
                    last = drawn;
                }
                Step::Observe(seen) => clock.observe(seen),
                Step::Restart => clock = HlcClock::new(NODE, clock.high_water()),
            }
        }
    }

    #[test]
    fn a_tick_lies_above_all_that_was_seen_near_the_clock(
        seen in vec((0..AHEAD_MILLIS_MAX, 0..9_u32, 0..9_u64), 1..9),
        now in 0..30_000_u64,
    ) {
        let mut clock = HlcClock::new(NODE, 0);
        let seen: Vec<Hlc> = seen.into_iter().map(|(m, c, n)| at(now + m, c, n)).collect();
        seen.iter().for_each(|seen| clock.observe(*seen));
        let drawn = clock.tick(now);
        for seen in seen {
            prop_assert!((drawn.millis, drawn.counter) > (seen.millis, seen.counter));
        }
    }

    #[test]
    fn the_order_is_total(stamps in vec((0..3_u64, 0..3_u32, 0..3_u64), 2..20)) {
        let mut stamps: Vec<Hlc> = stamps.into_iter().map(|(m, c, n)| at(m, c, n)).collect();
        stamps.sort();
        for pair in stamps.windows(2) {
            let same = (pair[0].millis, pair[0].counter, pair[0].node)
                == (pair[1].millis, pair[1].counter, pair[1].node);
            prop_assert_eq!(pair[0] < pair[1], !same);
        }
    }
}

#[test]
fn time_decides_before_the_counter_and_the_counter_before_the_node() {
    let ordered = [at(1, 9, 9), at(2, 0, 1), at(2, 0, 2), at(2, 1, 0), at(3, 0, 0)];
    assert!(ordered.is_sorted());
}

#[test]
fn two_nodes_never_draw_the_same() {
    let (mut one, mut two) = (HlcClock::new(NodeId(1), 0), HlcClock::new(NodeId(2), 0));
    assert_ne!(one.tick(5), two.tick(5));
}

#[test]
fn a_full_counter_moves_to_the_next_millisecond() {
    let mut clock = HlcClock::new(NODE, 0);
    clock.observe(at(10, u32::MAX, 1));
    assert_eq!(clock.tick(5), at(11, 0, NODE.0));
}

#[test]
fn a_timestamp_of_the_far_future_is_not_followed_before_its_time() {
    let mut clock = HlcClock::new(NODE, 0);
    clock.observe(at(90_000, 4, 1));
    assert_eq!(clock.tick(1_000), at(1_000, 0, NODE.0));
    assert_eq!(clock.tick(90_000 - AHEAD_MILLIS_MAX), at(90_000 - AHEAD_MILLIS_MAX, 0, NODE.0));
    assert_eq!(clock.tick(90_001 - AHEAD_MILLIS_MAX), at(90_000, 5, NODE.0));
}

/// The largest lead of an honest peer: at the drift's limit and restarted.
#[test]
fn a_peer_that_has_just_restarted_is_followed() {
    let now = 100_000;
    let mut first_life = HlcClock::new(NodeId(1), 0);
    first_life.tick(now + DRIFT_MILLIS_MAX - 1);
    let mut peer = HlcClock::new(NodeId(1), first_life.high_water());
    let drawn = peer.tick(now + DRIFT_MILLIS_MAX - 1);
    let mut clock = HlcClock::new(NODE, 0);
    clock.observe(drawn);
    assert!(clock.tick(now) > drawn);
}

#[test]
fn a_restart_lies_above_the_mark_even_with_a_clock_set_back() {
    let mut first_life = HlcClock::new(NODE, 0);
    let last = first_life.tick(50_000);
    let mut second_life = HlcClock::new(NODE, first_life.high_water());
    assert!(second_life.tick(10) > last);
}

#[test]
fn the_mark_moves_once_per_window() {
    let mut clock = HlcClock::new(NODE, 0);
    let mut marks = Vec::new();
    for now in 1_000..1_000 + 3 * HIGH_WATER_WINDOW_MILLIS {
        clock.tick(now);
        marks.push(clock.high_water());
    }
    marks.dedup();
    assert_eq!(marks.len(), 3);
}

/// It once moved a window ahead with every life.
#[test]
fn restarting_over_and_over_does_not_run_ahead_of_the_clock() {
    let (now, mut mark) = (1_000, 0);
    for _ in 0..100 {
        let mut clock = HlcClock::new(NODE, mark);
        clock.tick(now);
        mark = clock.high_water();
    }
    assert!(mark <= now + HIGH_WATER_WINDOW_MILLIS + 100, "mark {mark}");
}

#[test]
fn a_clock_after_a_persisted_timestamp_goes_on_from_it() {
    let persisted = at(90_000, 7, 9);
    let mut clock = HlcClock::after(NODE, persisted);
    let next = clock.tick(10);
    assert_eq!(next, at(90_000, 8, NODE.0));
    assert!(next > persisted);
}

#[test]
fn only_a_clock_ahead_of_ours_is_inadmissible() {
    let now = 1_000_000;
    assert!(HlcClock::admissible(now + DRIFT_MILLIS_MAX, now));
    assert!(!HlcClock::admissible(now + DRIFT_MILLIS_MAX + 1, now));
    assert!(!HlcClock::admissible(u64::MAX, now));
    assert!(HlcClock::admissible(0, now) && HlcClock::admissible(0, u64::MAX));
}

#[test]
fn what_is_drawn_after_a_reservation_lies_below_it() {
    let mut clock = HlcClock::new(NODE, 0);
    for now in [1_000, 1_001, 7_000, 500, 90_000] {
        let mark = clock.reserve(now);
        for _ in 0..100 {
            assert!(clock.tick(now).millis < mark);
        }
        assert_eq!(clock.high_water(), mark);
    }
}

#[test]
fn a_reservation_leaves_room_for_a_counter_that_runs_over() {
    let mut clock = HlcClock::after(NODE, at(10_000, u32::MAX - 1, NODE.0));
    let mark = clock.reserve(5);
    assert_eq!(clock.tick(5), at(10_000, u32::MAX, NODE.0));
    assert_eq!(clock.tick(5), at(10_001, 0, NODE.0));
    assert!(10_001 < mark);
    assert_eq!(clock.high_water(), mark);
}

#[test]
fn reservations_move_the_mark_once_per_window() {
    let mut clock = HlcClock::new(NODE, 0);
    let now = 1_000..1_000 + 3 * HIGH_WATER_WINDOW_MILLIS - 10;
    let mut marks: Vec<u64> = now.map(|now| clock.reserve(now)).collect();
    marks.dedup();
    assert_eq!(marks.len(), 3, "{marks:?}");
}
