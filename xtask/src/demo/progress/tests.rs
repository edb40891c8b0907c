use super::*;

#[test]
fn a_span_is_blamed_on_what_set_it_off() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let progress = Progress::begun(start);
    let events = [(10, "a split"), (20, "a kill"), (22, "a restart")];
    let diary = events.map(|(seconds, what)| (at(seconds), what.to_owned()));
    progress.diary.lock().unwrap().extend(diary);
    let blamed = |from, seconds| progress.within(at(from), Duration::from_secs(seconds));
    assert_eq!(blamed(19, 3), "from 19.0 s on, when: a kill");
    assert_eq!(blamed(21, 3), "from 21.0 s on, when: a kill");
    assert_eq!(blamed(15, 1), "from 15.0 s on, when: a split");
    assert_eq!(blamed(30, 1), "from 30.0 s on, when: a restart");
}
