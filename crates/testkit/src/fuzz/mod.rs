//! Fuzz targets that are tests: bounded and repeatable with `cargo test`,
//! guided by coverage with `cargo bolero` where that is installed.
//!
//! A target is a test function that hands [`fuzz!`](crate::fuzz!) a [`Corpus`]
//! and a check. The check is called with one input after the other and panics
//! when something is wrong; otherwise whatever a decoder says of an input, it
//! is content. A binary with targets declares its allocator once, which counts
//! for [`frugal`]:
//!
//! ```
//! use quorate_testkit::fuzz::{self, Corpus};
//! use quorate_types::codec::{decode, encode};
//! use quorate_types::{Blob, Epoch, TxnId};
//!
//! quorate_testkit::fuzz_allocator!(); // once, at the top of the file of targets
//!
//! // A #[test] in a file named fuzz.rs: `cargo xtask fuzz` goes by the path.
//! fn any_bytes_are_a_pair_or_none() {
//!     let value = (TxnId { epoch: Epoch(7), position: 300 }, Blob::from(&b"value"[..]));
//!     quorate_testkit::fuzz!(Corpus::of([encode(&value)]), |input| {
//!         // Frugal, read again when written, and nothing after the end:
//!         fuzz::value::<(TxnId, Blob)>(fuzz::BYTES_PER_BYTE, input);
//!         // The same by hand, for decoders of another kind:
//!         let decoded = fuzz::frugal(input.len(), || decode::<(TxnId, Blob)>(input));
//!         if let Ok((_, blob)) = decoded {
//!             assert!(blob.len() < input.len());
//!         }
//!     });
//! }
//! # any_bytes_are_a_pair_or_none();
//! ```
//!
//! **Behind a checksum** lies the decoder that matters. Put payloads into the
//! corpus, and let the check seal its input as a sender would:
//! `let row = seal_row(KEY, FORMAT, input)`, and then open `row` beside the
//! bare `input`.
//!
//! **A core** is fed with decisions: `Corpus::random(2_000)` and, in the check,
//! [`Choices::new(input)`](Choices), until [`Choices::is_spent`]. An input is
//! then a whole history, and the shrinking of a finding shortens it.
//!
//! **Memory.** [`frugal`] fails when decoding `n` bytes allocated more than
//! [`SLACK_BYTES`] and [`BYTES_PER_BYTE`] times `n`. It counts what was
//! allocated in all, not what lived at most at one time: the total is an upper
//! bound of the peak, so that who passes has a bounded peak too; it needs no
//! sampling; and it also bounds the work that a hostile input can cause. A
//! vector that grows by doubling counts with its last capacity only, because
//! growing counts the difference. [`frugal_by`] is for decoders whose elements
//! are small on the wire and large in memory; say there why.
//!
//! **Chance.** bolero's own engine for plain tests draws its seeds from the
//! system, each time others, and offers no way around: the one seed that
//! `BOLERO_RANDOM_SEED` sets is one input. So a plain run has an engine of
//! ours, which draws input `i` from the target's name, a seed and `i`: the
//! same inputs in the same order on every machine, until [`INPUTS_MAX`] or
//! [`TIME_MAX`] is reached. bolero still catches panics and shrinks. Built with
//! `--cfg fuzzing`, as `cargo bolero` does, the same target runs on bolero's
//! engine, and what that finds lies in `__fuzz__/TARGET/crashes` beside the
//! source, where plain runs read it first.
//!
//! | variable | for |
//! |---|---|
//! | `QUORATE_FUZZ_SECONDS=N` | so long per target, with no limit of inputs |
//! | `QUORATE_FUZZ_SEED=N` | another sequence of inputs; 0 otherwise |
//! | `QUORATE_FUZZ_INPUT=N` | this input of the sequence alone, as a finding prints it |

mod choices;
mod corpus;
mod engine;
mod memory;
mod mutate;
mod value;

pub use choices::Choices;
pub use corpus::Corpus;
pub use engine::{INPUTS_MAX, TIME_MAX, run};
pub use memory::{BYTES_PER_BYTE, SLACK_BYTES, allocated, frugal, frugal_by};
pub use value::value;

#[doc(hidden)]
pub use bolero::{__item_path__, TargetLocation};
#[doc(hidden)]
pub use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Runs a check on many inputs; see [the module](mod@crate::fuzz).
///
/// `fuzz!(corpus, |input: &[u8]| { ... })` is the body of a test function.
#[macro_export]
macro_rules! fuzz {
    ($corpus:expr, $check:expr $(,)?) => {{
        let location = $crate::fuzz::TargetLocation {
            package_name: env!("CARGO_PKG_NAME"),
            manifest_dir: env!("CARGO_MANIFEST_DIR"),
            module_path: module_path!(),
            file: file!(),
            line: line!(),
            item_path: $crate::fuzz::__item_path__!(),
            test_name: None,
        };
        $crate::fuzz::run(location, $corpus, $check);
    }};
}

/// Declares the allocator that [`fuzz::frugal`](crate::fuzz::frugal) asks:
/// once in a test binary.
#[macro_export]
macro_rules! fuzz_allocator {
    () => {
        #[global_allocator]
        static COUNTING: &$crate::fuzz::StatsAlloc<::std::alloc::System> =
            &$crate::fuzz::INSTRUMENTED_SYSTEM;
    };
}
