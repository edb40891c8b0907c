//! Panics as values.

use quorate_types::contain::{Panicked, contain, is_contained};

#[test]
fn a_panic_becomes_an_error_with_its_message() {
    assert_eq!(contain(|| 7), Ok(7));
    assert_eq!(contain(|| panic!("plain")).unwrap_err(), Panicked("plain".into()));
    assert_eq!(contain(|| panic!("number {}", 7)).unwrap_err(), Panicked("number 7".into()));
    let odd = contain(|| std::panic::panic_any(7)).unwrap_err();
    assert_eq!(odd, Panicked("no message".into()));
}

#[test]
fn hooks_can_tell_what_is_contained() {
    assert!(!is_contained());
    let nested = contain(|| {
        contain(|| panic!("inner")).unwrap_err();
        is_contained()
    });
    assert_eq!(nested, Ok(true));
    contain(|| panic!("outer")).unwrap_err();
    assert!(!is_contained());
}
