//! `cargo xtask tidy`: the rules of the house that no compiler knows.

mod faults;
mod house;
mod layers;
mod lexer;
mod source;
mod targets;
mod tree;

use std::fmt;

use crate::{Outcome, shell};
use layers::Package;
use tree::Tree;

/// A place where a rule is broken. Ordered by place.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Violation {
    /// The file, relative to the root.
    file: String,
    /// The line, from 1.
    line: usize,
    /// What is wrong and what to do.
    message: String,
}

impl Violation {
    fn new(file: &str, line: usize, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Checks the workspace and prints what is wrong.
pub(crate) fn run() -> Outcome {
    let root = shell::root();
    let violations = check(&Tree::read(&root)?, &layers::packages(&root)?)?;
    for violation in &violations {
        eprintln!("{violation}");
    }
    match violations.len() {
        0 => Ok(()),
        count => Err(format!("tidy: {count} places break a rule").into()),
    }
}

/// Every place that breaks a rule, in order.
fn check(tree: &Tree, packages: &[Package]) -> Outcome<Vec<Violation>> {
    let mut violations = layers::check(tree, packages);
    violations.extend(tree.files().flat_map(source::check));
    violations.extend(faults::check(tree));
    violations.extend(targets::check(tree, packages));
    violations.extend(house::check(tree)?);
    violations.sort();
    Ok(violations)
}

#[cfg(test)]
mod tests;
