//! That no place is forgotten.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::*;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names that a macro has in the crates' sources.
fn named_by(mark: &str) -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("crates");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(crates).unwrap() {
        sources(&entry.unwrap().path().join("src"), &mut files);
    }
    let mut names = BTreeSet::new();
    // The macro's own file shows how it is used.
    for file in files.iter().filter(|file| !file.ends_with("types/src/fault.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for (at, _) in text.match_indices(mark) {
            let argument = text[at + mark.len()..].trim_start();
            if let Some(name) = argument.strip_prefix('"').and_then(|rest| rest.split('"').next()) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_place_is_demanded_or_excused() {
    let listed: Vec<&str> =
        DEMANDED.into_iter().chain(EXCUSED.into_iter().map(|(place, _)| place)).collect();
    let known: BTreeSet<String> = listed.iter().map(|place| (*place).to_owned()).collect();
    assert_eq!(known.len(), listed.len(), "a place is listed twice");
    assert_eq!(named_by("sometimes!("), known);
}

#[test]
fn every_rare_branch_is_demanded_and_missed_unless_it_was_taken() {
    let known: BTreeSet<String> = STUMBLES.into_iter().map(str::to_owned).collect();
    assert_eq!(known.len(), STUMBLES.len(), "a branch is listed twice");
    assert_eq!(named_by("buggify!("), known);
    let count = |fired| SiteCounts { reached: 1, fired };
    let counts = |(at, site): (usize, &str)| (site.to_owned(), count(u64::from(at > 0)));
    let sites: BTreeMap<_, _> = STUMBLES.into_iter().enumerate().map(counts).collect();
    // Reached is not taken.
    assert_eq!(never_taken(&sites), [STUMBLES[0]]);
    assert_eq!(never_taken(&BTreeMap::new()), STUMBLES);
}
