//! Rules on the house as a whole.

use std::collections::BTreeSet;

use toml::Table;

use super::Violation;
use super::layers::{LAYERS, line_of};
use super::lexer::{self, is_of_name};
use super::tree::Tree;
use crate::Outcome;

/// The facade wires layers; what is longer has begun to decide.
pub(super) const FACADE_LINES_MAX: usize = 2_500;

const DEPENDENCIES: &str = "docs/dependencies.md";

/// Every rule for the house.
pub(super) fn check(tree: &Tree) -> Outcome<Vec<Violation>> {
    let mut violations: Vec<Violation> = facade_length(tree).into_iter().collect();
    for name in crates(tree) {
        violations.extend(front_page(tree, name));
    }
    for name in LAYERS {
        violations.extend(mixed_examples(tree, name));
    }
    violations.extend(unexplained_dependencies(tree)?);
    Ok(violations)
}

/// The names of the folders in `crates`.
fn crates(tree: &Tree) -> BTreeSet<&str> {
    let manifests = tree
        .below("crates/")
        .filter_map(|file| file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"));
    manifests.filter(|name| !name.contains('/')).collect()
}

fn facade_length(tree: &Tree) -> Option<Violation> {
    let files = tree.below("crates/quorate/src/").filter(|file| file.path.ends_with(".rs"));
    let count: usize = files.map(|file| file.text.lines().count()).sum();
    (count > FACADE_LINES_MAX).then(|| {
        let message = format!("the facade has {count} lines; at most {FACADE_LINES_MAX}");
        Violation::new("crates/quorate/src/lib.rs", 1, message)
    })
}

/// A crate's README, its place in the documentation, and examples.
fn front_page(tree: &Tree, name: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut broken =
        |file: String, message: &str| violations.push(Violation::new(&file, 1, message));
    let is_layer = LAYERS.contains(&name);

    let readme = format!("crates/{name}/README.md");
    match tree.text(&readme) {
        None => broken(readme, "every crate has a README.md: what it is and what it is not"),
        Some(text) if is_layer && !text.contains("```") => {
            broken(readme, "a layer's front page shows an example that runs");
        }
        Some(_) => {}
    }
    let lib = format!("crates/{name}/src/lib.rs");
    if !tree
        .text(&lib)
        .is_some_and(|text| text.contains("#![doc = include_str!(\"../README.md\")]"))
    {
        broken(
            lib,
            "README.md is the crate's front page: #![doc = include_str!(\"../README.md\")]",
        );
    }
    let examples = format!("crates/{name}/examples/");
    let has_example = tree.below(&examples).any(|file| file.path.ends_with(".rs"));
    if (is_layer || name == "quorate") && !has_example {
        broken(examples, "a layer has an example that uses only it and types");
    }
    violations
}

/// Examples of a layer that need more of this house than the layer and types.
/// Whoever wants that layer alone learns nothing from them.
fn mixed_examples(tree: &Tree, layer: &str) -> Vec<Violation> {
    let mut violations = Vec::new();
    let (folder, own) = (format!("crates/{layer}/examples/"), format!("quorate_{layer}"));
    for file in tree.below(&folder).filter(|file| file.path.ends_with(".rs")) {
        for (index, line) in lexer::lines(&file.text).iter().enumerate() {
            let others = line.code.split(|c| !is_of_name(c)).filter(|word| {
                let is_crate = *word == "quorate" || word.starts_with("quorate_");
                is_crate && *word != own && *word != "quorate_types"
            });
            violations.extend(others.map(|other| {
                let message =
                    format!("an example of {layer} uses {own} and quorate_types, not {other}");
                Violation::new(&file.path, index + 1, message)
            }));
        }
    }
    violations
}

/// Dependencies that nobody gave a reason for.
fn unexplained_dependencies(tree: &Tree) -> Outcome<Vec<Violation>> {
    let manifest = tree.text("Cargo.toml").ok_or("there is no Cargo.toml at the root")?;
    let table: Table =
        manifest.parse().map_err(|error| format!("Cargo.toml is not readable: {error}"))?;
    let dependencies = table.get("workspace").and_then(|workspace| workspace.get("dependencies"));
    let Some(dependencies) = dependencies.and_then(|value| value.as_table()) else {
        return Ok(Vec::new());
    };
    let reasons = tree.text(DEPENDENCIES).unwrap_or_default();
    let from_elsewhere = dependencies.iter().filter(|(_, value)| value.get("path").is_none());
    let unexplained = from_elsewhere.filter(|(name, _)| !names(reasons, name));
    let violation = |(name, _): (&String, _)| {
        let message = format!("{DEPENDENCIES} gives no reason for {name}");
        Violation::new("Cargo.toml", line_of(manifest, name), message)
    };
    Ok(unexplained.map(violation).collect())
}

/// Whether a text names a package by itself, not as part of a longer name.
fn names(text: &str, package: &str) -> bool {
    let is_of_package = |c: char| is_of_name(c) || c == '-';
    text.split(|c| !is_of_package(c)).any(|word| word == package)
}
