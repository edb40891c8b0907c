//! A checker of relative links in Markdown.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::Outcome;

/// The pages outside `docs/` that belong to the book.
const PAGES: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

/// Every relative link that leads nowhere, as `file:line: message`.
pub(super) fn broken(root: &Path) -> Outcome<Vec<String>> {
    let mut book = Book { root, anchors: BTreeMap::new() };
    let mut broken = Vec::new();
    for page in pages(root)? {
        let text = std::fs::read_to_string(root.join(&page))
            .map_err(|error| format!("cannot read {}: {error}", page.display()))?;
        for Link { line, target } in links(&text) {
            if let Err(problem) = book.follow(&page, &target) {
                broken.push(format!("{}:{line}: {problem}", page.display()));
            }
        }
    }
    Ok(broken)
}

/// The pages of the book, relative to the root.
fn pages(root: &Path) -> Outcome<Vec<PathBuf>> {
    let mut pages: Vec<PathBuf> = PAGES.iter().map(PathBuf::from).collect();
    let folder = root.join("docs");
    let entries = std::fs::read_dir(&folder)
        .map_err(|error| format!("cannot read the book's folder docs: {error}"))?;
    for entry in entries {
        let name = PathBuf::from(entry?.file_name());
        if name.extension().is_some_and(|extension| extension == "md") {
            pages.push(Path::new("docs").join(name));
        }
    }
    pages.sort();
    Ok(pages)
}

struct Book<'a> {
    root: &'a Path,
    /// The anchors of each page that a link named.
    anchors: BTreeMap<PathBuf, Vec<String>>,
}

impl Book<'_> {
    fn follow(&mut self, page: &Path, target: &str) -> Result<(), String> {
        let (file, anchor) = match target.split_once('#') {
            Some((file, anchor)) => (file, Some(anchor)),
            None => (target, None),
        };
        let path = match file {
            "" => self.root.join(page),
            file => self.root.join(page).with_file_name("").join(file),
        };
        if !path.exists() {
            return Err(format!("there is no '{file}'"));
        }
        let is_page = path.extension().is_some_and(|extension| extension == "md");
        match anchor {
            Some(anchor) if is_page && !self.anchors(&path).iter().any(|known| known == anchor) => {
                Err(format!("'{target}': no heading has the anchor '{anchor}'"))
            }
            _ => Ok(()),
        }
    }

    fn anchors(&mut self, path: &Path) -> &[String] {
        self.anchors.entry(path.to_path_buf()).or_insert_with(|| {
            // The path exists; a page that is no text has no anchors.
            anchors(&std::fs::read_to_string(path).unwrap_or_default())
        })
    }
}

/// A link and where it stands.
#[derive(PartialEq, Eq, Debug)]
struct Link {
    line: usize,
    target: String,
}

/// The relative links of a page: `[text](target)` and `[name]: target`.
fn links(text: &str) -> Vec<Link> {
    let mut found = Vec::new();
    for (line, prose) in prose(text) {
        let inline = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        let definition = prose
            .trim_start()
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]:"))
            .map(|(_, target)| target);
        for target in inline.chain(definition) {
            // What follows a space is the link's title.
            let target = target.split_whitespace().next().unwrap_or_default();
            let target = target.trim_start_matches('<').trim_end_matches('>');
            if !target.is_empty() && is_relative(target) {
                found.push(Link { line, target: target.to_owned() });
            }
        }
    }
    found
}

fn is_relative(target: &str) -> bool {
    !target.contains("://") && !target.starts_with("mailto:")
}

/// The numbered lines outside code blocks, without code spans.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            // Every second piece between backticks is code. It stays as a
            // pair of backticks, for it may be the text of a link.
            let pieces: Vec<&str> = line.split('`').step_by(2).collect();
            lines.push((index + 1, pieces.join("``")));
        }
    }
    lines
}

/// The anchors that a page's headings get: lower case, punctuation gone,
/// spaces as hyphens, and a number behind a repeated one.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        }
        let Some(heading) = line.strip_prefix('#').filter(|_| !is_code) else { continue };
        let base = anchor(heading.trim_start_matches('#').trim());
        let repeated = (1..).map(|number| format!("{base}-{number}"));
        let free = std::iter::once(base.clone()).chain(repeated).find(|a| !anchors.contains(a));
        anchors.extend(free);
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests;
