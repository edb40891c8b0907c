use super::*;

#[test]
fn the_table_is_sorted_so_that_every_command_is_found_in_any_case() {
    for (index, spec) in commands().iter().enumerate() {
        let found = lookup(spec.name.to_uppercase().as_bytes());
        assert_eq!(found.map(|(index, _)| index), Some(index), "{}", spec.name);
    }
    assert!(lookup(b"nosuchcommand").is_none());
    assert!(lookup(&[b'g'; 1_000]).is_none());
}
