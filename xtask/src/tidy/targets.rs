//! Tests that no command would run.
//!
//! A library or program whose manifest says `test = false` is not compiled once
//! more to look for tests in it. That spares a build of whatever has none, and
//! would hide one that is written there later.

use super::Violation;
use super::layers::{Package, Target};
use super::lexer::{self, has_word};
use super::tree::{TextFile, Tree};

/// Every test in a target that is not tested.
pub(super) fn check(tree: &Tree, packages: &[Package]) -> Vec<Violation> {
    let untested = packages.iter().flat_map(|package| &package.untested);
    let files = untested.flat_map(|target| tree.files().filter(|file| belongs(target, file)));
    files.filter_map(hidden_test).collect()
}

/// Whether a file is part of a target. A program in one file has no other, and
/// programs are no part of the library beside them.
fn belongs(target: &Target, file: &TextFile) -> bool {
    if file.path == target.source {
        return true;
    }
    let Some((folder, root)) = target.source.rsplit_once('/') else { return false };
    let is_below = file.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    let owns_folder = match root {
        "lib.rs" => !file.path.contains("/src/bin/") && !file.path.ends_with("/src/main.rs"),
        "main.rs" => !folder.ends_with("/src"),
        _ => false,
    };
    is_below && owns_folder && file.path.ends_with(".rs")
}

fn hidden_test(file: &TextFile) -> Option<Violation> {
    let lines = lexer::lines(&file.text);
    let is_test = |code: &str| {
        code.contains("#[test]") || (code.contains("#[cfg(") && has_word(code, "test"))
    };
    let at = lines.iter().position(|line| is_test(&line.code))?;
    let message = "no command runs this test: the manifest says 'test = false' of its target";
    Some(Violation::new(&file.path, at + 1, message))
}
