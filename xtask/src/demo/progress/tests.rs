use super::*;

#[test]
fn a_span_is_blamed_on_what_began_first_within_it() {
    let progress = Progress::new();
    let second = Duration::from_secs(1);
    progress.begin("a split");
    let from = Instant::now();
    assert_eq!(progress.within(from, Duration::ZERO), "a split");
    progress.begin("a kill");
    progress.begin("a restart");
    assert_eq!(progress.within(from, second), "a kill");
    assert_eq!(progress.within(from + second, second), "a restart");
}
