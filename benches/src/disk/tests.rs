use super::*;

#[test]
fn a_prefilled_log_begins_again_instead_of_growing() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = RawLog::prefilled(directory.path(), "log", 1).unwrap();
    let bytes = std::fs::metadata(directory.path().join("log")).unwrap().len();
    for _ in 0..3 {
        log.append(&vec![1; usize::try_from(bytes).unwrap() / 2 + 1]).unwrap();
    }
    assert_eq!(std::fs::metadata(directory.path().join("log")).unwrap().len(), bytes);
}

#[test]
fn the_rate_counts_every_file_and_leaves_none_behind() {
    let directory = tempfile::tempdir().unwrap();
    let rate = sync_rate(directory.path(), 2, Duration::from_millis(20)).unwrap();
    assert!(rate.per_second > 0.0 && rate.p50_micros <= rate.p99_micros, "{rate:?}");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
