use super::*;

#[test]
fn a_control_succeeds_by_a_verdict_and_by_nothing_else() {
    let clean = Ending::Clean("all holds".to_owned());
    let judged = Ending::Judged("lists: strictly serializable: a circle".to_owned());
    let broken = Ending::Broken("not within 90s: every node serves".to_owned());
    let due = |is_control| [&clean, &judged, &broken].map(|ending| ending.is_due(is_control));
    assert_eq!(due(true), [false, true, false]);
    assert_eq!(due(false), [true, false, false]);
}

#[test]
fn no_time_for_strikes_is_refused_before_anything_is_done() {
    let folder = Path::new("target").join("chaos-without-time");
    let options = Options {
        arsenal: Arsenal::Everything,
        seed: 1,
        seconds: 0,
        nodes: NODES_MIN,
        folder: folder.clone(),
        may_mount: false,
        keeps: false,
        is_control: false,
    };
    let refused = run(&options).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::InvalidInput);
    assert!(!folder.exists());
}
