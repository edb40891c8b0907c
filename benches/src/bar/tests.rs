use super::*;

fn spread(values: &[f64]) -> Spread {
    Spread::of(values.iter().copied())
}

#[test]
fn a_verdict_is_by_the_median() {
    let bar = Bar::at_least(0.7, "of raw");
    assert_eq!(bar.judge(spread(&[0.9, 0.1, 0.75])), ">= 0.7 of raw: 0.75, met");
    assert_eq!(bar.judge(spread(&[0.9, 0.1, 0.698])), ">= 0.7 of raw: 0.698, not met");
}

#[test]
fn a_bar_itself_is_met_unless_figures_have_to_be_below() {
    let two = spread(&[2.0]);
    assert_eq!(Bar::at_least(2.0, "s").judge(two), ">= 2 s: 2, met");
    assert_eq!(Bar::at_most(2.0, "s").judge(two), "<= 2 s: 2, met");
    assert_eq!(Bar::below(2.0, "s").judge(two), "< 2 s: 2, not met");
}

#[test]
fn what_was_not_measured_meets_no_bar() {
    assert_eq!(Bar::at_most(2.0, "s").judge(spread(&[])), "<= 2 s: not measured");
    assert!(!Bar::at_most(2.0, "s").is_met_by(f64::NAN));
}
