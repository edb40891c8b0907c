//! `cargo xtask docs`.

mod links;

use crate::{Outcome, artifacts, shell};

/// The book's links, then the API documentation.
pub(crate) fn run() -> Outcome {
    check_links()?;
    build()
}

/// Every relative link of the book leads somewhere.
pub(crate) fn check_links() -> Outcome {
    let broken = links::broken(&shell::root())?;
    for link in &broken {
        eprintln!("{link}");
    }
    match broken.len() {
        0 => Ok(()),
        count => Err(format!("links: {count} lead nowhere").into()),
    }
}

/// The API documentation. Libraries only: the program `quorate` would
/// overwrite the pages of the library of the same name.
pub(crate) fn build() -> Outcome {
    let mut command = shell::cargo();
    command.arg("doc").args(artifacts::ALL_CODE).args(["--lib", "--no-deps"]);
    shell::run(command.env("RUSTDOCFLAGS", "-D warnings"))
}
