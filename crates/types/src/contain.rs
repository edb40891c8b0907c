//! Panics of code that is not ours, as values: of a storage library on a
//! damaged page, of a user's procedure.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static IS_CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// What panicked, in its own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("panicked: {0}")]
pub struct Panicked(pub String);

/// Runs `work`; a panic becomes an error. What `work` had hold of must not be
/// used after one: nothing says in which state the panic left it.
///
/// # Errors
/// [`Panicked`]
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = IS_CONTAINED.replace(true);
    let ended = catch_unwind(AssertUnwindSafe(work));
    IS_CONTAINED.set(outer);
    ended.map_err(|panic| Panicked(message_of(&*panic)))
}

/// Whether this thread's panics are contained and reported as errors. For
/// panic hooks: such a panic needs no message of its own.
#[must_use]
pub fn is_contained() -> bool {
    IS_CONTAINED.get()
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_owned()
}
