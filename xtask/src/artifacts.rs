//! What cargo builds, and where it puts it.
//!
//! Tests, examples and the server come out of one build with one set of
//! features, so that no crate is compiled twice: cargo unites features over
//! the packages that are built together, and a build of one package alone may
//! unite others. The set is every feature but the one that plants bugs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Outcome, shell};

/// What selects all code there is, that of planted bugs included: to be looked
/// at by a linter, never to be run.
pub(crate) const ALL_CODE: [&str; 2] = ["--workspace", "--all-features"];

/// The feature that plants bugs, in whichever package.
const PLANTS_BUGS: &str = "canary";

/// The package whose programs run whole clusters.
const TESTS: &str = "quorate-tests";

/// The variable that tells end-to-end tests which server to start.
pub(crate) const SERVER_VARIABLE: &str = "QUORATE_BIN";

/// The program that the house is about.
pub(crate) const SERVER: &str = "quorate";

/// Cargo unites the features of dev-dependencies with the others as soon as it
/// builds one thing that may use them, as tests do. Of those, this is the least
/// to build.
const SMALL_EXAMPLE: &str = "embedded";

/// Programs that a build left behind.
#[derive(Debug, Default)]
pub(crate) struct Artifacts {
    /// Every program, by name.
    programs: BTreeMap<String, PathBuf>,
    /// Every example.
    pub(crate) examples: Vec<PathBuf>,
}

impl Artifacts {
    /// The server, which every build of ours contains.
    pub(crate) fn server(&self) -> Outcome<&PathBuf> {
        self.program(SERVER)
    }

    /// A program that was asked for.
    pub(crate) fn program(&self, name: &str) -> Outcome<&PathBuf> {
        let found = self.programs.get(name);
        found.ok_or_else(|| format!("cargo built no program '{name}'").into())
    }
}

/// What selects everything that is run; the same for every command.
pub(crate) fn everything() -> Outcome<Vec<String>> {
    let mut metadata = shell::cargo();
    metadata.args(["metadata", "--format-version", "1", "--no-deps"]);
    let features = harmless_features(&shell::read(&mut metadata)?)?;
    Ok(vec!["--workspace".to_owned(), "--features".to_owned(), features.join(",")])
}

/// All features of all members but those that plant bugs, as cargo's command
/// line names them.
fn harmless_features(metadata: &str) -> Outcome<Vec<String>> {
    let metadata: Value = serde_json::from_str(metadata)?;
    let packages = metadata.get("packages").and_then(Value::as_array);
    let mut features = Vec::new();
    for package in packages.ok_or("cargo metadata names no packages")? {
        let name = package.get("name").and_then(Value::as_str).unwrap_or_default();
        let own = package.get("features").and_then(Value::as_object);
        let harmless = own.into_iter().flatten().filter(|(feature, _)| *feature != PLANTS_BUGS);
        features.extend(harmless.map(|(feature, _)| format!("{name}/{feature}")));
    }
    Ok(features)
}

/// Builds tests, examples and the server.
pub(crate) fn build_everything() -> Outcome<Artifacts> {
    let mut command = shell::cargo();
    command.arg("build").args(everything()?).args(["--lib", "--bins", "--tests", "--examples"]);
    build(&mut command)
}

/// Builds the server without the tests: less to wait for on a fresh clone, and
/// nothing that the tests' build would compile again.
pub(crate) fn build_server() -> Outcome<Artifacts> {
    build_programs(&[SERVER])
}

/// As [`build_server`], for other programs too.
pub(crate) fn build_programs(names: &[&str]) -> Outcome<Artifacts> {
    let mut command = shell::cargo();
    command.arg("build").args(everything()?).args(["--example", SMALL_EXAMPLE]);
    for name in names {
        command.args(["--bin", name]);
    }
    build(&mut command)
}

/// Builds a program with planted bugs in it, which no other command runs.
pub(crate) fn build_with_canaries(name: &str) -> Outcome<Artifacts> {
    let features = format!("{TESTS}/{PLANTS_BUGS}");
    let mut command = shell::cargo();
    command.args(["build", "--package", TESTS, "--features", &features, "--bin", name]);
    build(&mut command)
}

fn build(command: &mut Command) -> Outcome<Artifacts> {
    let shown = shell::show(command);
    eprintln!("$ {shown}");
    let mut child = command
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot run '{shown}': {error}"))?;
    let mut artifacts = Artifacts::default();
    if let Some(messages) = child.stdout.take() {
        for line in BufReader::new(messages).lines() {
            artifacts.note(&line?);
        }
    }
    let status = child.wait()?;
    if status.success() {
        Ok(artifacts)
    } else {
        Err(format!("'{shown}' failed ({status})").into())
    }
}

impl Artifacts {
    /// Reads one of cargo's messages. Lines that are none come from build
    /// scripts and are not ours to judge.
    fn note(&mut self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else { return };
        let Some(program) = message.get("executable").and_then(Value::as_str) else { return };
        let is_test = message.pointer("/profile/test").and_then(Value::as_bool) == Some(true);
        let name = message.pointer("/target/name").and_then(Value::as_str).unwrap_or_default();
        match message.pointer("/target/kind/0").and_then(Value::as_str) {
            Some("bin") if !is_test => {
                self.programs.insert(name.to_owned(), program.into());
            }
            Some("example") if !is_test => self.examples.push(program.into()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
