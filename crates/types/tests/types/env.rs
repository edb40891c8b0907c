//! Time and chance.

use std::time::Duration;

use quorate_types::env::{Clock, Rng, SplitMix, SystemClock};

/// From the reference implementation, seed 1234567.
#[test]
fn chance_is_the_published_sequence() {
    let mut rng = SplitMix::new(1_234_567);
    let drawn: [u64; 5] = std::array::from_fn(|_| rng.next_u64());
    assert_eq!(
        drawn,
        [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ]
    );
}

#[test]
fn a_seed_of_zero_is_a_seed() {
    assert_eq!(SplitMix::new(0).next_u64(), 0xE220_A839_7B1D_CDAF);
}

#[test]
fn a_bound_is_kept_and_none_is_below_zero() {
    let mut rng = SplitMix::new(1);
    assert!((0..1_000).all(|_| rng.below(7) < 7));
    assert!((0..1_000).any(|_| rng.below(7) == 6));
    assert_eq!((rng.below(1), rng.below(0)), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn monotonic_time_is_the_runtime_s() {
    let clock = SystemClock::new();
    assert_eq!(clock.monotonic(), Duration::ZERO);
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(clock.monotonic(), Duration::from_secs(9));
}

#[test]
fn the_time_of_day_is_in_milliseconds() {
    // Between the year in which this was written and the year 3000.
    assert!((1_760_000_000_000..32_500_000_000_000).contains(&SystemClock::new().wall_millis()));
}
