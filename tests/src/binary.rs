//! The program under test.

use std::path::PathBuf;

/// Names the program; set by `cargo xtask test`.
const VARIABLE: &str = "QUORATE_BIN";

/// The server `quorate`: the one that the variable `QUORATE_BIN` names, or the
/// one beside this test in cargo's target folder.
///
/// # Panics
/// When it was not built.
#[must_use]
pub fn server() -> PathBuf {
    if let Some(named) = std::env::var_os(VARIABLE) {
        let named = PathBuf::from(named);
        assert!(named.is_file(), "{VARIABLE} names {}, which is no file", named.display());
        return named;
    }
    // target/<profile>/deps/<test>
    let test = std::env::current_exe().unwrap();
    let beside = test.ancestors().skip(1).map(|folder| folder.join("quorate"));
    let found = beside.take(3).find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "the server was not built: run `cargo build -p quorate-server`, or name it in {VARIABLE}"
        )
    })
}
