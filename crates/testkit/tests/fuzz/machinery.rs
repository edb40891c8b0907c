//! A fuzzer that finds nothing must be known to find something.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use quorate_testkit::fuzz::{self, Choices, Corpus};
use quorate_types::codec::{decode, encode, open_row, seal_row};
use quorate_types::{Blob, Seq};

/// What the target says when it fails.
fn finding(target: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(target)).expect_err("nothing was found");
    panic.downcast_ref::<String>().expect("a message").clone()
}

fn inputs_of_a_target() -> Vec<Vec<u8>> {
    let mut inputs = Vec::new();
    quorate_testkit::fuzz!(Corpus::of([b"one", b"two"]), |input| {
        if inputs.len() < 1_000 {
            inputs.push(input.to_vec());
        }
    });
    inputs
}

#[test]
fn a_target_has_the_same_inputs_each_time() {
    let inputs = inputs_of_a_target();
    assert_eq!(inputs, inputs_of_a_target());
    let different: BTreeSet<_> = inputs.iter().collect();
    assert!(different.len() > 600, "{} of 1,000 are different", different.len());
}

#[test]
fn a_planted_panic_is_found_made_small_and_can_be_repeated() {
    let value = [b"header".as_slice(), &[7; 100]].concat();
    let found = finding(|| {
        quorate_testkit::fuzz!(Corpus::of([value]), |input| {
            assert!(!(input.starts_with(b"header") && input.get(6) == Some(&0xC6)), "planted");
        });
    });
    assert!(found.contains("planted"), "{found}");
    assert!(found.contains(r#"7 bytes: b"header\xc6""#), "{found}");
    assert!(found.contains("Again: QUORATE_FUZZ_INPUT="), "{found}");
    assert!(found.contains("cargo test -p quorate-testkit machinery::a_planted_panic"), "{found}");
}

#[test]
fn a_sealed_mutation_gets_past_the_checksum() {
    let value = Seq(vec![1_u64, 2, 3]);
    let (mut bare, mut sealed, mut changed) = (0, 0, 0);
    quorate_testkit::fuzz!(Corpus::of([encode(&value)]), |input| {
        bare += u32::from(open_row(b"key", 1, input).is_ok());
        let row = seal_row(b"key", 1, input);
        if let Ok(found) = decode::<Seq<u64>>(open_row(b"key", 1, &row).unwrap().1) {
            sealed += 1;
            changed += u32::from(found != value);
        }
    });
    assert_eq!(bare, 0);
    assert!(changed > 500 && sealed > changed, "{sealed} decoded, {changed} others");
}

#[test]
fn a_reader_that_believes_an_announced_length_is_found_out() {
    let honest = [&4_u32.to_be_bytes()[..], b"four"].concat();
    let found = finding(|| {
        quorate_testkit::fuzz!(Corpus::of([honest]), |input| {
            let Some(announced) = input.first_chunk() else { return };
            let announced = (u32::from_be_bytes(*announced) as usize).min(1 << 24);
            fuzz::frugal(input.len(), || Vec::<u8>::with_capacity(announced));
        });
    });
    assert!(found.contains("makes its reader allocate"), "{found}");
}

#[test]
fn a_frugal_reader_is_left_alone_beside_a_busy_one() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::black_box(vec![1_u8; 10_000]);
            }
        });
        for _ in 0..2_000 {
            let blob = fuzz::frugal(100, || Blob::from(&[0; 100][..]));
            assert_eq!(blob.len(), 100);
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn decisions_end_with_their_input() {
    let mut choices = Choices::new(&[3, 0xFF, 1, 2, 9, 9]);
    assert_eq!(choices.below(2), 1);
    assert!(choices.flag());
    assert_eq!(choices.below(1), 0, "one possibility needs no byte");
    assert_eq!(choices.pick(&["a", "b", "c"]), Some(&"b"));
    assert_eq!(choices.bytes(9), &[9, 9]);
    assert!(choices.is_spent());
    assert_eq!((choices.number(), choices.below(1_000), choices.edge()), (0, 0, 0));
    assert_eq!(choices.pick::<u8>(&[]), None);
    assert_eq!(Choices::new(b"rest").rest(), b"rest");
}
