use super::*;

const LONG: Duration = Duration::from_secs(600);

#[test]
fn waiting_ends_with_what_was_waited_for_or_the_last_reason() {
    let interrupt = Interrupt::default();
    let mut left = 2;
    let found = interrupt.wait_until(&Wait::new("it", LONG), || {
        left -= 1;
        Ok(if left == 0 { Ok("found") } else { Err("not yet".to_owned()) })
    });
    assert_eq!(found.unwrap(), "found");

    let now = Wait::new("it", Duration::ZERO);
    let never = interrupt.wait_until::<()>(&now, || Ok(Err("no reason".to_owned())));
    assert_eq!(never.unwrap_err().to_string(), "it: not within 0 s: no reason");
}

#[test]
fn an_interruption_ends_waiting_and_sleeping() {
    let interrupt = Interrupt::default();
    let waited = interrupt.wait_until::<()>(&Wait::new("it", LONG), || {
        interrupt.set();
        Ok(Err("not yet".to_owned()))
    });
    assert_eq!(waited.unwrap_err().to_string(), "interrupted");
    assert_eq!(interrupt.sleep(LONG).unwrap_err().to_string(), "interrupted");
}

#[test]
fn a_signal_interrupts() {
    let interrupt = Interrupt::by_signals().unwrap();
    assert!(!interrupt.is_set());
    signal_hook::low_level::raise(SIGHUP).unwrap();
    assert!(interrupt.is_set());
}
