//! Calibration: Jepsen's logs of an early etcd, whose verdicts are known. The
//! logs and the verdicts are those that come with the package todc-utils; they
//! are read where cargo keeps the package.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use quorate_testkit::check::Verdict;
use quorate_testkit::check::linearizable::{STEPS_MAX_DEFAULT, check};
use quorate_testkit::history::{Datum, Event, EventKind, History, MicroOp, ProcessId};
use quorate_types::env::{Rng, SplitMix};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History as TheirHistory};
use todc_utils::specifications::etcd::{EtcdOperation, EtcdSpecification, EtcdStatus};

const KEY: &str = "r";

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Where the package's tests are.
fn package() -> PathBuf {
    let version = cargo(&["-vV"]);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    // Packages for other platforms need not be there.
    let metadata = cargo(&[
        "metadata",
        "--format-version=1",
        "--offline",
        "--filter-platform",
        host,
        "--manifest-path",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ]);
    let metadata: serde_json::Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "todc-utils").unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    manifest.parent().unwrap().join("tests/linearizability")
}

/// The table in the package's own test: the logs and whether each is
/// linearizable.
fn table(package: &Path) -> BTreeMap<String, bool> {
    let source = std::fs::read_to_string(package.join("etcd.rs")).unwrap();
    let rows = source.lines().filter_map(|line| {
        let (_, row) = line.trim().strip_prefix("test_")?.split_once(": (\"")?;
        let (number, verdict) = row.split_once("\", ")?;
        Some((number.to_owned(), verdict.strip_suffix("),")?.parse().ok()?))
    });
    rows.collect()
}

/// Whether a comparison that did not hold is taken for an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusals {
    Answers,
    Nothing,
}

/// What the clients did, from lines such as
/// `INFO  jepsen.util - 0 :invoke :cas [0 3]`.
fn history(log: &str, refusals: Refusals) -> History {
    let mut events: Vec<Event> = Vec::new();
    for (number, line) in log.lines().enumerate() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["INFO", "jepsen.util", "-", process, kind, f, value @ ..] = words.as_slice() else {
            continue;
        };
        let Ok(process) = process.parse().map(ProcessId) else { continue };
        let numbers: Vec<i64> =
            value.iter().filter_map(|word| word.trim_matches(['[', ']']).parse().ok()).collect();
        let kind = match *kind {
            ":invoke" => EventKind::Invoke,
            ":ok" => EventKind::Ok,
            ":fail" => EventKind::Fail,
            ":info" => EventKind::Info,
            other => panic!("{other} in line {number}"),
        };
        let (kind, step) = match (*f, numbers.as_slice(), kind) {
            (":read", [value], EventKind::Ok) => (kind, Some(MicroOp::saw_int(KEY, *value))),
            (":read", [], EventKind::Ok) => (kind, Some(MicroOp::saw(KEY, Datum::Nil))),
            (":read", ..) => (kind, Some(MicroOp::read(KEY))),
            (":write", [value], _) => (kind, Some(MicroOp::write(KEY, *value))),
            (":cas", [expected, _], EventKind::Fail) if refusals == Refusals::Answers => {
                (EventKind::Ok, Some(MicroOp::differs(KEY, *expected)))
            }
            (":cas", [expected, new], _) => {
                (kind, Some(MicroOp::compare_and_set(KEY, *expected, *new)))
            }
            (":write" | ":cas", [], EventKind::Info) => (kind, None),
            other => panic!("{other:?} in line {number}"),
        };
        events.push(Event {
            kind,
            process,
            time: Duration::from_millis(number as u64),
            f: "txn".into(),
            txn: step.into_iter().collect(),
            error: None,
        });
    }
    History { events }
}

fn judge(history: &History) -> Verdict {
    check(&history.operations().unwrap(), &BTreeMap::new(), STEPS_MAX_DEFAULT)
}

#[test]
fn jepsens_logs_of_etcd_get_the_verdicts_they_are_known_for() {
    let package = package();
    let table = table(&package);
    assert_eq!(table.len(), 102, "the package's table changed its form");
    // Judged without the refusals, so many fewer are found.
    let mut found = [0; 2];
    for (number, is_linearizable) in &table {
        let file = package.join(format!("etcd/etcd_{number}.log"));
        let log = std::fs::read_to_string(file).unwrap();
        let whole = history(&log, Refusals::Answers);
        assert!(whole.events.len() > 100, "log {number} was not understood");
        let verdict = judge(&whole);
        assert_ne!(verdict.is_valid(), verdict.is_invalid(), "log {number}: {verdict}");
        assert_eq!(verdict.is_valid(), *is_linearizable, "log {number}: {verdict}");
        let partial = judge(&history(&log, Refusals::Nothing));
        assert!(partial.is_valid() || verdict.is_invalid(), "log {number}: {partial}");
        found[0] += usize::from(verdict.is_invalid());
        found[1] += usize::from(partial.is_invalid());
    }
    assert!(found[1] <= found[0] && found[1] > 0, "{found:?}");
}

/// A register that now and then answers wrongly, in the words of both checkers.
struct Both {
    ours: Vec<Event>,
    theirs: Vec<(usize, Action<EtcdOperation>)>,
}

fn both(seed: u64, count: u64) -> Both {
    let mut chance = SplitMix::new(seed);
    let mut register: Option<u32> = None;
    let mut moments: Vec<(u64, usize, EventKind, MicroOp, EtcdOperation)> = Vec::new();
    for process in 0..count {
        let moment = 1000 + 10 * process;
        let ends = [moment - 1 - chance.below(60), moment + 1 + chance.below(60)];
        let shown = if chance.below(12) == 0 { Some(chance.below(3) as u32) } else { register };
        let value = chance.below(3) as u32;
        let datum = |value: Option<u32>| value.map_or(Datum::Nil, |value| Datum::Int(value.into()));
        let (step, operation) = match chance.below(3) {
            0 => {
                register = Some(value);
                (MicroOp::write(KEY, value.into()), EtcdOperation::Write(EtcdStatus::Okay, value))
            }
            1 => {
                let expected = chance.below(3) as u32;
                let pair = (expected, value);
                if shown == Some(expected) {
                    register = Some(value);
                    let step = MicroOp::compare_and_set(KEY, expected.into(), value.into());
                    (step, EtcdOperation::CompareAndSwap(EtcdStatus::Okay, pair))
                } else {
                    let step = MicroOp::differs(KEY, expected.into());
                    (step, EtcdOperation::CompareAndSwap(EtcdStatus::Fail, pair))
                }
            }
            _ => (MicroOp::saw(KEY, datum(shown)), EtcdOperation::Read(EtcdStatus::Okay, shown)),
        };
        for (at, kind) in ends.into_iter().zip([EventKind::Invoke, EventKind::Ok]) {
            moments.push((at * 1000 + process, process as usize, kind, step.clone(), operation));
        }
    }
    moments.sort_by_key(|(at, process, ..)| (*at, *process));
    let mut both = Both { ours: Vec::new(), theirs: Vec::new() };
    for (at, process, kind, step, operation) in moments {
        let is_call = kind == EventKind::Invoke;
        let action = if is_call { Action::Call(operation) } else { Action::Response(operation) };
        both.theirs.push((process, action));
        both.ours.push(Event {
            kind,
            process: ProcessId(process as u64),
            time: Duration::from_millis(at),
            f: "txn".into(),
            txn: vec![step],
            error: None,
        });
    }
    both
}

#[test]
fn agrees_with_another_search_on_registers() {
    let mut verdicts = [0; 2];
    for seed in 0..1_000 {
        let Both { ours, theirs } = both(seed, 1 + seed % 40);
        let ours = judge(&History { events: ours });
        let theirs =
            WGLChecker::<EtcdSpecification>::is_linearizable(TheirHistory::from_actions(theirs));
        assert_ne!(ours.is_valid(), ours.is_invalid(), "seed {seed}: {ours}");
        assert_eq!(ours.is_valid(), theirs, "seed {seed}: {ours}");
        verdicts[usize::from(theirs)] += 1;
    }
    assert!(verdicts.iter().all(|count| *count > 100), "{verdicts:?} prove little");
}
