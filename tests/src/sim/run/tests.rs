use super::super::report::Report;
use super::*;

/// One that is just long and busy enough.
fn run(seed: u64) -> Run {
    let (duration, completed, strikes) = COUNTS_FROM;
    Run {
        seed,
        findings: Vec::new(),
        virtual_millis: u64::try_from(duration.as_millis()).unwrap(),
        wall_millis: 1,
        completed,
        committed: completed,
        judged: completed,
        undecided: 0,
        struck: BTreeMap::from([(Fault::FullDisk, Struck { times: strikes, in_vain: 0 })]),
        power_cuts: 0,
        writes_torn: 0,
        messages: 0,
        checks: BTreeMap::new(),
        sites: BTreeMap::new(),
        trace_hash: 0,
        trace_lines: 0,
    }
}

#[test]
fn a_run_with_a_history_that_no_checker_could_decide_does_not_count() {
    let (decided, open) = (run(1), Run { undecided: 1, ..run(2) });
    assert!(decided.counts());
    assert!(!open.counts());
    let mut report = Report::default();
    for run in [decided, open] {
        let judged = run.judged;
        report.add(run, String::new());
        assert_eq!(report.judged(), judged);
    }
    assert_eq!((report.runs(), report.counted(), report.undecided()), (2, 1, 1));
    assert!(report.to_string().contains("undecided        1 histories"));
}
