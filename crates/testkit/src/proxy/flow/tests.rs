use std::num::NonZeroU32;

use proptest::prelude::*;

use super::*;

/// Flips a stream that is cut at `cuts`; returns it and the count.
fn flipped(length: usize, cuts: &[usize], every: u64, seed: u64) -> (Vec<u8>, u64) {
    let mut stream = vec![0; length];
    let mut bounds: Vec<usize> = cuts.iter().map(|cut| cut % (length + 1)).collect();
    bounds.extend([0, length]);
    bounds.sort_unstable();
    let mut count = 0;
    for pair in bounds.windows(2) {
        let piece = &mut stream[pair[0]..pair[1]];
        count += flip(piece, pair[0] as u64, NonZeroU64::new(every).unwrap(), seed);
    }
    (stream, count)
}

proptest! {
    #[test]
    fn the_same_bits_are_flipped_wherever_the_stream_is_cut(
        length in 1_usize..4_000,
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
        every in 1_u64..900,
        seed in any::<u64>(),
    ) {
        let (whole, count) = flipped(length, &[], every, seed);
        prop_assert_eq!(flipped(length, &cuts, every, seed), (whole.clone(), count));
        let ones: u32 = whole.iter().map(|byte| byte.count_ones()).sum();
        prop_assert_eq!(u64::from(ones), count);
        // Each whole stretch has one, the last one perhaps.
        let stretches = length as u64 / every;
        prop_assert!(count == stretches || count == stretches + 1);
    }

    #[test]
    fn a_rate_is_kept_however_long_the_pieces(rate in 1_u32..1 << 24, left in 1_usize..16 << 10) {
        let behaviour =
            Behaviour { bytes_per_second: NonZeroU32::new(rate), ..Behaviour::default() };
        let (length, pause) = pace(&behaviour, left);
        prop_assert!((1..=left).contains(&length));
        let bytes_per_second = length as f64 / pause.as_secs_f64();
        prop_assert!(bytes_per_second < f64::from(rate) * 1.01, "{bytes_per_second} of {rate}");
    }
}

#[test]
fn jitter_is_added_to_the_delay_and_drawn_from_the_seed() {
    let wait = Duration::from_millis(30);
    let jitter = Duration::from_millis(10);
    let drawn = |seed| {
        let behaviour = Behaviour { delay: wait, jitter, seed, ..Behaviour::default() };
        (0..50).map(|number| delay(&behaviour, 1, number)).collect::<Vec<_>>()
    };
    assert!(drawn(1).iter().all(|delay| (wait..wait + jitter).contains(delay)));
    assert!(drawn(1).windows(2).any(|pair| pair[0] != pair[1]));
    assert_eq!(drawn(1), drawn(1));
    assert_ne!(drawn(1), drawn(2));
}

#[test]
fn one_byte_trickles_through() {
    let trickle = Some(Duration::from_millis(7));
    let behaviour = Behaviour { trickle, ..Behaviour::default() };
    assert_eq!(pace(&behaviour, 100), (1, Duration::from_millis(7)));
    assert_eq!(pace(&Behaviour::healthy(), 100), (100, Duration::ZERO));
}
