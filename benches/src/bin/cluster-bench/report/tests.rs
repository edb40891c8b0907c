use super::*;

#[test]
fn a_percentile_is_a_value_that_was_measured() {
    let values: Vec<u64> = (1..=200).collect();
    assert_eq!(percentile(&values, 50), 100);
    assert_eq!(percentile(&values, 99), 198);
    assert_eq!(percentile(&values, 100), 200);
    assert_eq!(percentile(&[7], 50), 7);
    assert_eq!(percentile(&[], 50), 0);
}

#[test]
fn a_line_counts_operations_per_second_and_shows_the_first_error() {
    let measured = Measured {
        micros: vec![1_000, 2_000, 3_000, 10_000],
        errors: 1,
        first_error: Some("REFUSED".to_owned()),
    };
    let row = Row::new(OURS, "set", 64, 2.0, measured);
    assert!((row.per_second - 2.0).abs() < 1e-9);
    let text = table(&[row]);
    let line: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..9], ["quorate", "set", "64", "2", "2.00", "10.00", "10.00", "10.00", "1"]);
    assert!(text.ends_with("first error of quorate set x 64: REFUSED\n"), "{text}");
}

#[test]
fn ratios_stand_beside_the_disk_and_the_same_work_of_others() {
    let rate = SyncRate { files: 1, per_second: 4.0, p50_micros: 1, p99_micros: 2 };
    let row = |system: &str, micros| {
        let measured = Measured { micros, ..Measured::default() };
        Row::new(system, "set", 1, 1.0, measured)
    };
    let report = Report {
        machine: Machine::of(Path::new(".")),
        nodes: 3,
        shards: 8,
        seconds: 1,
        idle_cores: None,
        limits: vec![Limits { one: rate, each: rate }],
        rows: vec![row(OURS, vec![1, 1]), row("other", vec![1, 1, 1, 1, 1])],
        absent: vec!["a third one: not installed".to_owned()],
    };
    let text = report.render();
    assert!(
        text.contains("set x 1          0.50 of the disk's fdatasync/s, 0.40 of other"),
        "{text}"
    );
    assert!(text.ends_with("a third one: not installed\n"), "{text}");
}
