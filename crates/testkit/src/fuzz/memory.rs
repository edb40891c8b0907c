//! What an input makes its reader allocate.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

/// What decoding anything may allocate: messages of errors, nodes of small
/// trees, and what is set up once.
pub const SLACK_BYTES: usize = 64 << 10;

/// What decoding may allocate for each byte of the input. A list of small
/// values has elements of 1 or 2 bytes on the wire, and 8 to 32 in memory.
pub const BYTES_PER_BYTE: usize = 16;

/// How often a measurement beyond the limit is repeated. The counters are the
/// process's, so that what other tests allocate meanwhile is counted too;
/// among so many tries of some microseconds one has the machine to itself, and
/// a reader that is not frugal is found in all of them.
const MEASUREMENTS_MAX: usize = 200;

/// Calls `decode` and fails when it allocates more than an input of so many
/// bytes justifies. It is called again if so, and must not change anything.
///
/// # Panics
/// When it is not frugal, and in a binary without
/// [`fuzz_allocator!`](crate::fuzz_allocator!).
pub fn frugal<R>(input_bytes: usize, decode: impl FnMut() -> R) -> R {
    frugal_by(BYTES_PER_BYTE, input_bytes, decode)
}

/// [`frugal`] with a factor of its own in place of [`BYTES_PER_BYTE`].
///
/// # Panics
/// As [`frugal`].
pub fn frugal_by<R>(bytes_per_byte: usize, input_bytes: usize, mut decode: impl FnMut() -> R) -> R {
    let allowed_bytes = SLACK_BYTES.saturating_add(bytes_per_byte.saturating_mul(input_bytes));
    let mut least_bytes = usize::MAX;
    for _ in 0..MEASUREMENTS_MAX {
        let (result, total_bytes) = allocated(&mut decode);
        if total_bytes <= allowed_bytes {
            return result;
        }
        least_bytes = least_bytes.min(total_bytes);
        std::thread::yield_now();
    }
    panic!(
        "an input of {input_bytes} bytes makes its reader allocate {least_bytes} bytes; \
         {allowed_bytes} are allowed"
    );
}

/// How many bytes were allocated in all while `work` ran, by any thread.
///
/// # Panics
/// In a binary without [`fuzz_allocator!`](crate::fuzz_allocator!).
pub fn allocated<R>(work: impl FnOnce() -> R) -> (R, usize) {
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    let witness = std::hint::black_box(Box::new(0_u8));
    let result = work();
    let total_bytes = region.change().bytes_allocated;
    assert!(
        total_bytes >= size_of_val(&*witness),
        "nothing is counted: declare quorate_testkit::fuzz_allocator!() in this test binary"
    );
    (result, total_bytes)
}
