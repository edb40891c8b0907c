use super::*;

fn try_example(program: &str, duration_max: Duration) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    run_example("it", Path::new(program), &folder.path().join("log"), duration_max)
}

#[test]
fn an_example_that_ends_well_passes_and_one_that_fails_does_not() {
    assert!(try_example("true", Duration::from_secs(60)).is_ok());
    let error = try_example("false", Duration::from_secs(60)).unwrap_err().to_string();
    assert!(error.contains("'it' failed"), "{error}");
}

#[test]
fn an_example_that_hangs_is_ended() {
    let error = try_example("yes", Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains("did not end"), "{error}");
}

#[test]
fn the_table_sums_its_durations_up() {
    let table = [("a", Duration::from_millis(1_500)), ("b", Duration::from_secs(2))];
    let text = render(&table);
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("all") && last.ends_with("3.5 s"), "{text}");
}
