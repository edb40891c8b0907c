use super::*;

fn parting_of(name: &str, first: &str, second: &str) -> Option<Parting> {
    let folder = std::env::temp_dir().join(format!("quorate-meta-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let files = [folder.join("first.txt"), folder.join("again.txt")];
    std::fs::write(&files[0], first).unwrap();
    std::fs::write(&files[1], second).unwrap();
    let parting = parting(&files).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    parting
}

#[test]
fn traces_part_in_the_first_line_that_differs() {
    let parting = parting_of("differ", "begins\nn1 disk: 3\nends", "begins\nn1 disk: 4\nends");
    let versions = ["n1 disk: 3", "n1 disk: 4"].map(|line| Some(line.to_owned()));
    assert_eq!(parting, Some(Parting { line: 2, versions }));
}

#[test]
fn a_trace_that_goes_on_parts_from_one_that_has_ended() {
    let parting = parting_of("ends", "begins", "begins\ngoes on");
    assert_eq!(parting, Some(Parting { line: 2, versions: [None, Some("goes on".to_owned())] }));
    assert_eq!(parting_of("same", "begins\nends", "begins\nends"), None);
}
