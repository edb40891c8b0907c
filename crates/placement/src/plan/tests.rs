use super::gate::{Share, room_millis};

fn share(load_millis: u64, weight: u64) -> Share {
    Share { load_millis, weight }
}

#[test]
fn a_move_is_at_most_half_the_gap() {
    assert_eq!(room_millis(share(3_000, 1), share(2_000, 1)), 500);
    assert_eq!(room_millis(share(5_000, 1), share(1_000, 1)), 2_000);
    assert_eq!(room_millis(share(1_000, 1), share(5_000, 1)), 0);
}

#[test]
fn a_heavier_node_takes_more_of_the_gap() {
    // Afterwards both carry 2 points per weight.
    assert_eq!(room_millis(share(8_000, 1), share(0, 3)), 6_000);
}
