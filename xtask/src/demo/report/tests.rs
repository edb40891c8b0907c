use super::*;

fn journal(kind: Kind, latencies_micros: Vec<u64>) -> Journal {
    let longest = latencies_micros.iter().copied().max().unwrap_or_default();
    Journal {
        kind,
        latencies_micros,
        longest: (Instant::now(), Duration::from_micros(longest)),
        acknowledged: vec![Acknowledged { key: "seq:0:0".to_owned(), at: Instant::now() }],
        conflicts: 2,
        refused: 0,
        unknown: 1,
        wrong: Vec::new(),
    }
}

#[test]
fn a_percentile_is_the_nearest_rank() {
    let latencies = Latencies::new((1..=1_000).rev());
    let micros = |permille| latencies.percentile(permille).as_micros();
    assert_eq!([micros(500), micros(990), micros(999), micros(1_000)], [500, 990, 999, 1_000]);
    let one = Latencies::new([7].into_iter());
    assert_eq!(one.percentile(1).as_micros(), 7);
    assert_eq!(one.percentile(999).as_micros(), 7);
    assert_eq!(Latencies::new(std::iter::empty()).percentile(500), Duration::ZERO);
}

#[test]
fn durations_are_shown_in_the_unit_that_reads_best() {
    assert_eq!(show(Duration::from_micros(250)), "250 us");
    assert_eq!(show(Duration::from_micros(2_500)), "2.5 ms");
    assert_eq!(show(Duration::from_millis(2_500)), "2.50 s");
}

#[test]
fn the_report_tells_both_kinds_of_work_and_the_longest_interruption() {
    let report = Report {
        load: Duration::from_secs(2),
        journals: vec![
            journal(Kind::Transfer, vec![1_000, 2_000]),
            journal(Kind::Write, vec![300; 20]),
            journal(Kind::Write, vec![2_500_000]),
        ],
        ..Report::default()
    };
    let text = report.render(|_, _| "a split".to_owned());
    let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    let words = |name: &str| line(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words("transfers").get(1..5).unwrap(), ["2", "1", "1.0", "ms"]);
    assert_eq!(words("writes").get(1..5).unwrap(), ["21", "10", "300", "us"]);
    assert!(line("longest interruption").ends_with("2.50 s, a split"), "{text}");
    assert!(line("begun again").contains("6 conflicts, 0 refused, 3 connections lost"), "{text}");
    assert!(text.ends_with("everything holds\n"), "{text}");
}

#[test]
fn what_is_off_is_told_last() {
    let report = Report { problems: vec!["a write is gone".to_owned()], ..Report::default() };
    let text = report.render(|_, _| String::new());
    assert!(text.ends_with("OFF: a write is gone\nsomething is off\n"), "{text}");
}

#[test]
fn what_was_not_checked_is_not_told_as_holding() {
    let report = Report { journals: vec![journal(Kind::Write, vec![1])], ..Report::default() };
    let text = report.render(|_, _| String::new());
    assert!(text.contains("1; nodes that show them all: not checked"), "{text}");
    assert!(text.contains("not seen to agree"), "{text}");
}

#[test]
fn a_move_tells_its_write_pause() {
    let mut migration = MigrationView {
        id: "m".to_owned(),
        kind: "move".to_owned(),
        group: "shard 3".to_owned(),
        from: Some(1),
        to: Some(4),
        phase: "complete".to_owned(),
        finished: true,
        error: None,
        write_pause_micros: Some(8_200),
    };
    let shown = show_migration(&migration);
    assert_eq!(shown, "move of shard 3 from node 1 to 4: complete, write pause 8.2 ms");
    migration.write_pause_micros = None;
    assert!(show_migration(&migration).ends_with(", write pause not measured by the node"));
}

#[test]
fn a_split_tells_the_longest_gap_of_writes_in_its_shard() {
    let start = Instant::now();
    let at = |millis| start + Duration::from_millis(millis);
    let written = |key: &str, millis| Acknowledged { key: key.to_owned(), at: at(millis) };
    let mut writes = journal(Kind::Write, vec![1]);
    // "foo" is in slot 0x2f96, "bar" in 0x13c5.
    writes.acknowledged =
        [5, 10, 14, 54, 58].into_iter().map(|millis| written("foo", millis)).collect();
    writes.acknowledged.extend([20, 30, 40].map(|millis| written("bar", millis)));
    let mut split = Split {
        shard: 3,
        took: Duration::from_millis(30),
        range: Range::parse("[0x2f00, 0x3000)"),
        calm_since: at(0),
        asked: at(12),
        until: at(60),
    };
    let report = Report { journals: vec![writes], ..Report::default() };
    let shown = report.show_split(&split);
    let expected =
        "shard 3, two after 30.0 ms; longest gap of writes in it 40.0 ms, before that 5.0 ms";
    assert_eq!(shown, expected);
    split.range = None;
    assert!(report.show_split(&split).ends_with("pause not measured"));
}
