//! Rules on who depends on whom (laws 1 and 9 of the design).

use std::path::Path;

use serde_json::Value;

use super::Violation;
use super::tree::Tree;
use crate::{Outcome, shell};

/// The layers: side by side on `types`, none knows another.
pub(super) const LAYERS: [&str; 8] =
    ["crdt", "gossip", "raft", "engine", "meta", "placement", "calvin", "migration"];

/// What the layers stand on.
const TYPES: &str = "quorate-types";

/// Who may depend on openraft, and who on redb.
const OPENRAFT: [&str; 1] = ["quorate-raft"];
const REDB: [&str; 4] = ["quorate-raft", "quorate-engine", "quorate-meta", "quorate-migration"];

/// A member of the workspace.
#[derive(Debug)]
pub(super) struct Package {
    /// Its name.
    pub(super) name: String,
    /// Its manifest, relative to the root.
    pub(super) manifest: String,
    /// What it depends on to be used: normal and build dependencies. Those of
    /// its tests are its own affair.
    pub(super) dependencies: Vec<String>,
    /// Its library and its programs of which no tests are compiled.
    pub(super) untested: Vec<Target>,
}

/// A library or a program.
#[derive(Debug)]
pub(super) struct Target {
    /// Its first file, relative to the root.
    pub(super) source: String,
}

/// The members of the workspace, as cargo sees them.
pub(super) fn packages(root: &Path) -> Outcome<Vec<Package>> {
    let mut command = shell::cargo();
    command.current_dir(root).args(["metadata", "--format-version", "1", "--no-deps"]);
    parse(&shell::read(&mut command)?)
}

/// Reads what `cargo metadata` prints.
fn parse(metadata: &str) -> Outcome<Vec<Package>> {
    let metadata: Value = serde_json::from_str(metadata)?;
    let root = text(&metadata, "workspace_root")?;
    array(&metadata, "packages")?.iter().map(|package| parse_package(package, root)).collect()
}

fn parse_package(package: &Value, root: &str) -> Outcome<Package> {
    let manifest = relative(text(package, "manifest_path")?, root);
    let mut dependencies = Vec::new();
    for dependency in array(package, "dependencies")? {
        if dependency.get("kind").and_then(Value::as_str) != Some("dev") {
            dependencies.push(text(dependency, "name")?.to_owned());
        }
    }
    let mut untested = Vec::new();
    for target in array(package, "targets")? {
        let mut kinds = array(target, "kind")?.iter().filter_map(Value::as_str);
        let has_source = kinds.any(|kind| matches!(kind, "lib" | "bin"));
        if has_source && target.get("test").and_then(Value::as_bool) == Some(false) {
            untested.push(Target { source: relative(text(target, "src_path")?, root) });
        }
    }
    let name = text(package, "name")?.to_owned();
    Ok(Package { name, manifest, dependencies, untested })
}

fn relative(path: &str, root: &str) -> String {
    path.strip_prefix(root).unwrap_or(path).trim_start_matches('/').to_owned()
}

fn text<'a>(value: &'a Value, field: &str) -> Outcome<&'a str> {
    let text = value.get(field).and_then(Value::as_str);
    text.ok_or_else(|| format!("cargo metadata has no text '{field}'").into())
}

fn array<'a>(value: &'a Value, field: &str) -> Outcome<&'a Vec<Value>> {
    let array = value.get(field).and_then(Value::as_array);
    array.ok_or_else(|| format!("cargo metadata has no array '{field}'").into())
}

/// Dependencies that the laws forbid.
pub(super) fn check(tree: &Tree, packages: &[Package]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            if let Some(message) = forbidden(package, dependency) {
                let line = line_of(tree.text(&package.manifest).unwrap_or_default(), dependency);
                violations.push(Violation::new(&package.manifest, line, message));
            }
        }
    }
    violations
}

/// Why a package must not depend on another, if so.
fn forbidden(package: &Package, dependency: &str) -> Option<String> {
    let name = package.name.as_str();
    let below_facade = is_layer(name) || name == TYPES;
    if below_facade && is_layer(dependency) {
        return Some(format!("{name} must not know the layer {dependency} (law 1)"));
    }
    if below_facade && is_ours(dependency) && dependency != TYPES {
        return Some(format!("{name} must not know {dependency} outside its tests (law 1)"));
    }
    // Tests, benches and tasks are no crates that users depend on.
    let is_for_users = package.manifest.starts_with("crates/");
    let is_openraft = dependency == "openraft" || dependency.starts_with("openraft-");
    if is_for_users && is_openraft && !OPENRAFT.contains(&name) {
        return Some(format!("{name} must not depend on {dependency} (law 9)"));
    }
    if is_for_users && dependency == "redb" && !REDB.contains(&name) {
        return Some(format!("{name} must not depend on redb (law 9)"));
    }
    None
}

fn is_layer(name: &str) -> bool {
    name.strip_prefix("quorate-").is_some_and(|layer| LAYERS.contains(&layer))
}

/// Whether a package is one of this house: the facade, or named after it.
fn is_ours(name: &str) -> bool {
    name == "quorate" || name.starts_with("quorate-")
}

/// The line of a manifest that names a dependency; the first otherwise.
pub(super) fn line_of(manifest: &str, dependency: &str) -> usize {
    let names = |line: &str| {
        let rest = line.trim_start().strip_prefix(dependency);
        rest.is_some_and(|rest| rest.starts_with(['.', ' ', '=']))
    };
    manifest.lines().position(names).map_or(1, |index| index + 1)
}
