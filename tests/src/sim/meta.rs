//! A seed is one run: two processes that run it must write the same trace.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::child::{Child, FOLDER};
use super::cli::Outcome;

/// Where two traces part.
#[derive(Debug, PartialEq, Eq)]
struct Parting {
    /// Counted from 1.
    line: u64,
    /// Both versions; `None` where a trace has ended.
    versions: [Option<String>; 2],
}

/// Each seed in two processes: their traces must be the same.
pub(super) fn compare(seeds: &[u64]) -> Outcome {
    let mut is_same = true;
    for seed in seeds {
        is_same &= is_one_run(*seed)?;
    }
    if !is_same {
        println!("VIOLATION a seed was two different runs");
    }
    Ok(is_same)
}

fn is_one_run(seed: u64) -> Outcome {
    let file = |name: &str| Path::new(FOLDER).join(format!("meta-{seed}-{name}.txt"));
    let files: [PathBuf; 2] = [file("first"), file("again")];
    let [mut first, mut second] =
        [Child::start_traced(seed, &files[0])?, Child::start_traced(seed, &files[1])?];
    let (first, second) = (first.wait()?, second.wait()?);
    println!(
        "seed {seed}: {:016x}, {} lines; again: {:016x}, {} lines",
        first.trace_hash, first.trace_lines, second.trace_hash, second.trace_lines
    );
    let is_one_sum =
        first.trace_hash == second.trace_hash && first.trace_lines == second.trace_lines;
    // What is kept of a long trace is compared byte by byte, its sum covers all.
    let parting = parting(&files)?;
    if !is_one_sum || parting.is_some() {
        tell(parting);
        println!("the traces are in {} and {}", files[0].display(), files[1].display());
        return Ok(false);
    }
    for file in &files {
        std::fs::remove_file(file)?;
    }
    Ok(first.findings == second.findings)
}

fn tell(parting: Option<Parting>) {
    let Some(Parting { line, versions }) = parting else {
        println!("they part behind the lines that are kept");
        return;
    };
    println!("they part in line {line}:");
    for (name, version) in ["first", "again"].into_iter().zip(versions) {
        println!("  {name}: {}", version.as_deref().unwrap_or("(it has ended)"));
    }
}

/// The first line in which two files differ.
fn parting(files: &[PathBuf; 2]) -> std::io::Result<Option<Parting>> {
    let [mut first, mut second] = [lines(&files[0])?, lines(&files[1])?];
    for line in 1.. {
        let versions = [first.next().transpose()?, second.next().transpose()?];
        match &versions {
            [None, None] => break,
            [first, second] if first != second => return Ok(Some(Parting { line, versions })),
            _ => {}
        }
    }
    Ok(None)
}

fn lines(file: &Path) -> std::io::Result<std::io::Lines<BufReader<File>>> {
    Ok(BufReader::new(File::open(file)?).lines())
}

#[cfg(test)]
mod tests;
