//! Tests in libraries and programs that no command would run.
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
    let files = untested.flat_map(|target| {
        let scope = Scope::of(tree, target);
        tree.files().filter(move |file| scope.contains(file))
    });
    files.filter_map(hidden_test).collect()
}

/// Where the files of a target are.
enum Scope<'a> {
    /// A program of one file.
    File(&'a str),
    /// A program in a folder of its own.
    Folder(&'a str),
    /// All of `src` that is no other program's.
    Sources(&'a str),
}

impl<'a> Scope<'a> {
    fn of(tree: &Tree, target: &'a Target) -> Self {
        let source = target.source.as_str();
        let (folder, root) = source.rsplit_once('/').unwrap_or(("", source));
        let is_in_src = folder.ends_with("/src");
        // A program beside a library has what it is made of in there.
        let has_library = || tree.text(&format!("{folder}/lib.rs")).is_some();
        match root {
            "lib.rs" => Self::Sources(folder),
            "main.rs" if !is_in_src => Self::Folder(folder),
            "main.rs" if !has_library() => Self::Sources(folder),
            _ => Self::File(source),
        }
    }

    fn contains(&self, file: &TextFile) -> bool {
        let below = |folder| {
            let rest = file.path.strip_prefix(folder)?.strip_prefix('/')?;
            rest.ends_with(".rs").then_some(rest)
        };
        match self {
            Self::File(source) => file.path == *source,
            Self::Folder(folder) => below(*folder).is_some(),
            Self::Sources(folder) => below(*folder).is_some_and(|rest| !rest.starts_with("bin/")),
        }
    }
}

fn hidden_test(file: &TextFile) -> Option<Violation> {
    let lines = lexer::lines(&file.text);
    let is_test = |code: &str| {
        code.trim_start().starts_with("#[") && has_word(code, "test") && !code.contains("not(test")
    };
    let at = lines.iter().position(|line| is_test(&line.code))?;
    let message = "no command runs this test: the manifest says 'test = false' of its target";
    Some(Violation::new(&file.path, at + 1, message))
}
