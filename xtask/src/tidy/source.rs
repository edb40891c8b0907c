//! Rules that look at one file.

use super::Violation;
use super::lexer::{self, Line, find_word, has_word, is_of_name};
use super::tree::TextFile;

/// A file is a room: what is longer holds half the house.
const SOURCE_LINES_MAX: usize = 900;

/// The one file that may start a task by itself.
const RUNTIME: &str = "crates/types/src/runtime.rs";

/// The simulator, whose messages must outlive the node that sent them.
const SIMULATOR: &str = "crates/testkit/src/sim/";

/// First folders of absolute paths on a developer's machine.
const HOMES: [&str; 4] = ["home", "root", "work", "Users"];

/// Every rule for one file.
pub(super) fn check(file: &TextFile) -> Vec<Violation> {
    let mut violations = machine_paths(file);
    if file.path.ends_with(".rs") {
        let lines = lexer::lines(&file.text);
        violations.extend(length(file));
        violations.extend(unfinished(file, &lines));
        violations.extend(ignored_tests(file, &lines));
        if file.path.contains("src/") {
            violations.extend(inline_tests(file, &lines));
        }
        if file.path.starts_with("crates/") || file.path.starts_with("tests/src/sim/") {
            violations.extend(disorder(file, &lines));
        }
        if file.path.starts_with("crates/") {
            violations.extend(bare_tasks(file, &lines));
        }
    } else if !file.path.ends_with(".md") && !file.path.ends_with(".lock") {
        violations.extend(unowned_notes(file, file.text.lines()));
        violations.extend(retried_tests(file));
    }
    violations
}

fn length(file: &TextFile) -> Option<Violation> {
    let count = file.text.lines().count();
    (count > SOURCE_LINES_MAX).then(|| {
        let message = format!("{count} lines; a source file has at most {SOURCE_LINES_MAX}");
        Violation::new(&file.path, SOURCE_LINES_MAX + 1, message)
    })
}

/// `todo!`, `unimplemented!` and notes without an owner.
fn unfinished(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    let is_unfinished = |line: &Line| {
        ["todo", "unimplemented"].iter().any(|name| {
            find_word(&line.code, name).any(|at| {
                line.code.get(at + name.len()..).is_some_and(|rest| rest.starts_with('!'))
            })
        })
    };
    let mut violations = mark(file, lines, is_unfinished, "unfinished code");
    violations.extend(unowned_notes(file, lines.iter().map(|line| line.comment.as_str())));
    violations
}

/// Notes of work to do that name nobody: `TODO(name)` names one.
fn unowned_notes<'a>(
    file: &TextFile,
    lines: impl Iterator<Item = &'a str>,
) -> impl Iterator<Item = Violation> {
    let has_no_owner = |text: &str| {
        ["TODO", "FIXME"].iter().any(|note| {
            find_word(text, note).any(|at| !has_owner(text.get(at + note.len()..).unwrap_or("")))
        })
    };
    let message = "a TODO or FIXME names its owner, as in TODO(name)";
    let numbers = lines.enumerate().filter(move |(_, text)| has_no_owner(text));
    numbers
        .map(|(index, _)| Violation::new(&file.path, index + 1, message))
        .collect::<Vec<_>>()
        .into_iter()
}

fn has_owner(rest: &str) -> bool {
    rest.strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
        .is_some_and(|(owner, _)| !owner.trim().is_empty())
}

/// Tests, doc tests included, that do not run.
fn ignored_tests(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    let is_ignored = |line: &Line| {
        let code = &line.code;
        let fence = line.comment.trim_start_matches(['/', '!', '*', ' ']).strip_prefix("```");
        code.contains("#[ignore")
            || (code.contains("cfg_attr") && has_word(code, "ignore"))
            || fence.is_some_and(|words| has_word(words, "ignore"))
    };
    mark(file, lines, is_ignored, "an ignored test tests nothing; mend or remove it")
}

/// Modules of tests with a body: a reader of the code has to step over them,
/// and they hide how long a file really is.
fn inline_tests(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    let mut violations = Vec::new();
    // Attributes stand before what they are about, line by line.
    let mut is_for_tests = false;
    for (index, line) in lines.iter().enumerate() {
        let code = line.code.trim();
        is_for_tests |= code.contains("#[cfg(") && has_word(code, "test");
        if let Some(name) = opened_module(code)
            && (is_for_tests || matches!(name, "test" | "tests"))
        {
            let message = "tests have a file of their own: mod tests;";
            violations.push(Violation::new(&file.path, index + 1, message));
        }
        if !code.is_empty() && !code.ends_with(']') {
            is_for_tests = false;
        }
    }
    violations
}

/// The name of the module whose body begins on this line.
fn opened_module(code: &str) -> Option<&str> {
    let at = find_word(code, "mod").next()?;
    let rest = code.get(at + "mod".len()..)?;
    let (name, _) = rest.split_once('{')?;
    let name = name.trim();
    (!name.is_empty() && name.chars().all(is_of_name)).then_some(name)
}

/// Settings that run a failed test again until it passes.
fn retried_tests(file: &TextFile) -> Vec<Violation> {
    let is_nextest = file.path.ends_with("nextest.toml");
    let is_retry = |line: &str| {
        let is_setting = is_nextest && has_word(line, "retries") && !line.ends_with("= 0");
        is_setting || line.contains("--retries") || line.contains("NEXTEST_RETRIES")
    };
    let lines = file.text.lines().map(str::trim).enumerate();
    let retried = lines.filter(|(_, line)| !line.starts_with('#') && is_retry(line));
    let message = "a retried test hides its failures";
    retried.map(|(index, _)| Violation::new(&file.path, index + 1, message)).collect()
}

/// What makes two runs of one seed differ.
fn disorder(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    let is_hashed =
        |line: &Line| has_word(&line.code, "HashMap") || has_word(&line.code, "HashSet");
    let message = "hash order differs between runs: use BTreeMap or BTreeSet";
    let mut violations = mark(file, lines, is_hashed, message);
    for (index, line) in lines.iter().enumerate() {
        for at in find_word(&line.code, "select") {
            let rest = line.code.get(at + "select".len()..).unwrap_or_default();
            let Some(body) = rest.strip_prefix('!') else { continue };
            if !is_biased(body, lines.iter().skip(index + 1)) {
                let message = "select! picks a branch at random: begin it with 'biased;'";
                violations.push(Violation::new(&file.path, index + 1, message));
            }
        }
    }
    violations
}

/// Whether the first word in the braces is `biased`; it may stand lines below.
fn is_biased<'a>(body: &str, following: impl Iterator<Item = &'a Line>) -> bool {
    let following = following.flat_map(|line| line.code.chars().chain([' ']));
    let inside = body.chars().chain([' ']).chain(following).skip_while(|c| c.is_whitespace());
    let word = inside.skip(1).skip_while(|c| c.is_whitespace()).take_while(|c| is_of_name(*c));
    word.eq("biased".chars())
}

/// Tasks that the simulator would not see.
fn bare_tasks(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    if file.path == RUNTIME || file.path.starts_with(SIMULATOR) {
        return Vec::new();
    }
    let is_bare = |line: &Line| {
        line.code.contains("tokio::spawn") || line.code.contains("tokio::task::spawn")
    };
    mark(file, lines, is_bare, "start tasks with quorate_types::runtime::spawn")
}

/// Paths that exist on one machine only.
fn machine_paths(file: &TextFile) -> Vec<Violation> {
    let is_machine_path = |line: &str| {
        HOMES.iter().any(|home| {
            let unix = format!("/{home}/");
            let windows = format!(":\\{home}\\");
            line.contains(&windows)
                || line.match_indices(&unix).any(|(at, _)| {
                    // Behind a name it is part of a longer path or address.
                    let before = line.get(..at).and_then(|before| before.chars().next_back());
                    !before.is_some_and(|c| is_of_name(c) || matches!(c, '.' | '-' | '}' | '*'))
                })
        })
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| is_machine_path(line));
    let message = "an absolute path of somebody's machine";
    lines.map(|(index, _)| Violation::new(&file.path, index + 1, message)).collect()
}

/// One violation for each line of which the predicate is true.
fn mark(
    file: &TextFile,
    lines: &[Line],
    is_wrong: impl Fn(&Line) -> bool,
    message: &str,
) -> Vec<Violation> {
    let wrong = lines.iter().enumerate().filter(|(_, line)| is_wrong(line));
    wrong.map(|(index, _)| Violation::new(&file.path, index + 1, message)).collect()
}
