//! Waiting, bounded.

use std::time::Duration;

use tokio::time::Instant;

/// How often to look.
const PAUSE: Duration = Duration::from_millis(25);

/// Looks until it sees what it looks for.
///
/// # Panics
/// When `bound` passes before; the message says what was last seen instead.
#[track_caller]
pub fn eventually<T>(
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> T {
    let until = Instant::now() + bound;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(instead) => {
                assert!(Instant::now() < until, "not within {bound:?}: {what}; last: {instead}");
            }
        }
        std::thread::sleep(PAUSE);
    }
}
