use super::*;

#[test]
fn waiting_ends_with_what_was_waited_for_or_the_last_reason() {
    let mut left = 2;
    let found = wait_until("it", Duration::from_secs(60), || {
        left -= 1;
        Ok(if left == 0 { Ok("found") } else { Err("not yet".to_owned()) })
    });
    assert_eq!(found.unwrap(), "found");

    let never = wait_until::<()>("it", Duration::ZERO, || Ok(Err("no reason".to_owned())));
    assert_eq!(never.unwrap_err().to_string(), "it: not within 0 s: no reason");
}

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
