use super::Room;

#[test]
fn there_is_room_for_so_many_and_for_another_when_one_leaves() {
    let room = Room::of(2);
    let (first, second) = (room.enter(), room.enter());
    assert!(first.is_some() && second.is_some() && room.enter().is_none());
    assert_eq!(room.taken(), 2);
    drop(first);
    assert_eq!(room.taken(), 1);
    assert!(room.enter().is_some());
}
