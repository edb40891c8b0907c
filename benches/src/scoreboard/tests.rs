use super::*;

#[test]
fn a_rate_stands_beside_that_of_its_peer() {
    let row = |name: &str, peers: &[&str], per_second| Row {
        name: name.to_owned(),
        peers: peers.iter().map(|peer| (*peer).to_owned()).collect(),
        per_second,
    };
    let rows = vec![row("limit", &[], 200.0), row("ours", &["left out", "limit"], 50.0)];
    let text = Scoreboard { unit: "entries", rows }.to_string();
    assert!(text.contains("50 entries/s   0.250 of 'limit'"), "{text}");
}

#[test]
fn the_median_is_the_middle_one() {
    assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&mut []), None);
}
