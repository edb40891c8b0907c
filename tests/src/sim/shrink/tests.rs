use super::*;

#[test]
fn what_is_needed_stays_and_the_rest_goes() {
    let options = (0..)
        .map(Options::draw)
        .find(|options| {
            options.kinds().contains(&Fault::PowerCut) && options.kinds().contains(&Fault::Loss)
        })
        .unwrap();
    let mut runs = 0;
    let small = shrink(&options, &mut |tried| {
        runs += 1;
        let kinds = tried.kinds();
        kinds.contains(&Fault::PowerCut) && kinds.contains(&Fault::Loss) && tried.load.clients >= 2
    });
    assert_eq!(small.strikes.len(), 2);
    assert!(small.kinds().contains(&Fault::Loss));
    assert!((2..=3).contains(&small.load.clients));
    assert!(!small.stumbles && small.cuts.is_empty() && small.spares == 0);
    assert!(runs < 400, "{runs} runs");
}

#[test]
fn what_never_goes_away_leaves_nothing() {
    let small = shrink(&Options::draw(3), &mut |_| true);
    assert!(small.strikes.is_empty());
    assert_eq!(small.founders, 1);
}
