//! The text files of a workspace.

use std::path::Path;
use std::process::Command;

use crate::{Outcome, shell};

/// A text file.
#[derive(Debug)]
pub(super) struct TextFile {
    /// Where it is, relative to the root, with forward slashes.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
}

/// Every text file that is under version control, or would be after
/// `git add`.
#[derive(Debug)]
pub(super) struct Tree {
    files: Vec<TextFile>,
}

impl Tree {
    /// Reads a workspace.
    pub(super) fn read(root: &Path) -> Outcome<Self> {
        let mut command = Command::new("git");
        command.current_dir(root).args(["ls-files", "-z", "--cached", "--others"]);
        let listing = shell::read(command.arg("--exclude-standard"))?;
        let mut paths: Vec<&str> = listing.split_terminator('\0').collect();
        paths.sort_unstable();
        // A file that is listed and gone was deleted; one that is no UTF-8 is
        // no text.
        let read = |path: &str| {
            let text = std::fs::read_to_string(root.join(path)).ok()?;
            Some(TextFile { path: path.to_owned(), text })
        };
        Ok(Self { files: paths.into_iter().filter_map(read).collect() })
    }

    /// All files, by path.
    pub(super) fn files(&self) -> impl Iterator<Item = &TextFile> {
        self.files.iter()
    }

    /// The files below a folder, given as `folder/`.
    pub(super) fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a TextFile> {
        self.files.iter().filter(move |file| file.path.starts_with(folder))
    }

    /// What a file says, if there is one.
    pub(super) fn text(&self, path: &str) -> Option<&str> {
        self.files.iter().find(|file| file.path == path).map(|file| file.text.as_str())
    }
}
