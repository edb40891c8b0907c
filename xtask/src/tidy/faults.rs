//! Rules on the hooks of `quorate_types::fault`, by which a simulator disturbs
//! the code it runs.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use super::lexer::{self, Line, find_word};
use super::tree::{TextFile, Tree};

/// The one file that may ask which features there are: everywhere else the
/// hooks look the same in every build.
const HOOKS: &str = "crates/types/src/fault.rs";

/// The features of those hooks.
const FEATURES: [&str; 2] = ["simulation", "canary"];

/// The one package whose users are simulations.
const SIMULATOR: &str = "tests/Cargo.toml";

/// Machines that every replica runs alike: chance of their own would make
/// them differ.
const REPLICATED: [&str; 21] = [
    "crates/calvin/src/command",
    "crates/calvin/src/kv",
    "crates/calvin/src/lock",
    "crates/calvin/src/dedup",
    "crates/calvin/src/shard/machine",
    "crates/calvin/src/shard/gate",
    "crates/calvin/src/shard/split",
    "crates/calvin/src/shard/tombstones",
    "crates/calvin/src/shard/rows",
    "crates/calvin/src/sequencer/machine",
    "crates/calvin/src/sequencer/rows",
    "crates/meta/src/bootstrap",
    "crates/meta/src/groups",
    "crates/meta/src/journal",
    "crates/meta/src/machine",
    "crates/meta/src/moves",
    "crates/meta/src/nodes",
    "crates/meta/src/registry",
    "crates/meta/src/shards",
    "crates/meta/src/splits",
    "crates/server/src/procedures",
];

/// Every rule on hooks.
pub(super) fn check(tree: &Tree) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut sites: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for file in tree.below("").filter(|file| is_production(&file.path)) {
        let lines = lexer::lines(&file.text);
        violations.extend(conditions(file, &lines));
        violations.extend(chance_in_replicas(file, &lines));
        violations.extend(repeated_sites(file, &lines, &mut sites));
    }
    for file in tree.below("").filter(|file| file.path.ends_with("Cargo.toml")) {
        violations.extend(enabled_features(file));
    }
    violations.extend(missing_bugs(tree));
    violations
}

fn is_production(path: &str) -> bool {
    path.starts_with("crates/") && path.contains("/src/") && path.ends_with(".rs")
}

/// Code that differs with the features.
fn conditions(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    if file.path == HOOKS {
        return Vec::new();
    }
    let message = format!("only {HOOKS} asks whether a simulation is built; use its macros");
    let texts = file.text.lines().zip(lines).enumerate();
    let is_condition = |text: &str, line: &Line| {
        line.code.contains("feature = ")
            && FEATURES.iter().any(|feature| text.contains(&format!("\"{feature}\"")))
    };
    texts
        .filter(|(_, (text, line))| is_condition(text, line))
        .map(|(index, _)| Violation::new(&file.path, index + 1, message.clone()))
        .collect()
}

fn chance_in_replicas(file: &TextFile, lines: &[Line]) -> Vec<Violation> {
    if !REPLICATED.iter().any(|start| file.path.starts_with(start)) {
        return Vec::new();
    }
    let message = "every replica runs this alike: no buggify! here";
    let hooked = lines.iter().enumerate().filter(|(_, line)| calls(&line.code, "buggify"));
    hooked.map(|(index, _)| Violation::new(&file.path, index + 1, message)).collect()
}

/// Sites of one name in two places: a report could not tell them apart.
fn repeated_sites(
    file: &TextFile,
    lines: &[Line],
    sites: &mut BTreeMap<String, (String, usize)>,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    if file.path == HOOKS {
        return violations;
    }
    for (index, (text, line)) in file.text.lines().zip(lines).enumerate() {
        let is_site = calls(&line.code, "buggify") || calls(&line.code, "sometimes");
        if !is_site {
            continue;
        }
        let Some(name) = text.split('"').nth(1) else {
            let message = "the name of the site stands on the line of its macro";
            violations.push(Violation::new(&file.path, index + 1, message));
            continue;
        };
        if let Some((other, line)) = sites.insert(name.to_owned(), (file.path.clone(), index + 1)) {
            let message = format!("'{name}' is the name of a site at {other}:{line} already");
            violations.push(Violation::new(&file.path, index + 1, message));
        }
    }
    violations
}

/// Bugs with a name and no place: a simulator would look for them in vain.
fn missing_bugs(tree: &Tree) -> Vec<Violation> {
    let hooks = tree.text(HOOKS).map(lexer::lines).unwrap_or_default();
    let production = tree.below("").filter(|file| file.path != HOOKS && is_production(&file.path));
    let planted: BTreeSet<String> =
        production.flat_map(|file| lexer::lines(&file.text)).flat_map(|line| bugs(&line)).collect();
    let start = hooks.iter().position(|line| line.code.contains("enum Canary {"));
    let variants = hooks.iter().enumerate().skip(start.map_or(usize::MAX, |start| start + 1));
    variants
        .take_while(|(_, line)| line.code.trim() != "}")
        .filter_map(|(index, line)| Some((index, line.code.trim().strip_suffix(',')?)))
        .filter(|(_, bug)| !planted.contains(*bug))
        .map(|(index, bug)| {
            Violation::new(HOOKS, index + 1, format!("{bug} is planted nowhere in crates/*/src"))
        })
        .collect()
}

/// The bugs that a line plants.
fn bugs(line: &Line) -> Vec<String> {
    let planted = line.code.split("planted!(").skip(1);
    planted.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// Manifests that turn hooks on for whoever depends on them.
fn enabled_features(file: &TextFile) -> Vec<Violation> {
    if file.path == SIMULATOR {
        return Vec::new();
    }
    let message = "only the simulator's package turns these features of quorate-types on";
    let is_enabling = |line: &str| {
        // A target that is built with a feature only does not turn it on.
        !line.starts_with("required-features")
            && FEATURES.iter().any(|feature| {
                let is_listed = line.contains(&format!("\"{feature}\""));
                let is_passed_on = line.contains(&format!("quorate-types/{feature}"));
                is_passed_on || (is_listed && line.starts_with("quorate-types"))
            })
    };
    let lines = file.text.lines().enumerate().filter(|(_, line)| is_enabling(line));
    lines.map(|(index, _)| Violation::new(&file.path, index + 1, message)).collect()
}

/// Whether a line of code calls a macro.
fn calls(code: &str, name: &str) -> bool {
    find_word(code, name)
        .any(|at| code.get(at + name.len()..).is_some_and(|rest| rest.starts_with("!(")))
}
