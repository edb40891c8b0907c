use super::*;

#[test]
fn what_nobody_uses_any_more_is_removed() {
    let home = tempfile::tempdir().unwrap();
    let first = Folder::claim(home.path()).unwrap();
    let left = first.path.clone();
    std::fs::write(left.join("node-1.log"), "a reason").unwrap();
    drop(first);
    let next = Folder::claim(home.path()).unwrap();
    assert!(!left.join("node-1.log").exists());
    assert!(next.path.exists());
}

#[test]
fn a_folder_whose_demo_runs_stays() {
    let home = tempfile::tempdir().unwrap();
    let first = Folder::claim(home.path()).unwrap();
    let second = Folder::claim(home.path()).unwrap();
    assert_ne!(first.base_port, second.base_port);
    assert!(first.path.exists() && second.path.exists());
}

#[test]
fn a_folder_whose_nodes_were_left_running_stays() {
    let home = tempfile::tempdir().unwrap();
    let node = TcpListener::bind("127.0.0.1:0").unwrap();
    let kept = home.path().join(node.local_addr().unwrap().port().to_string());
    std::fs::create_dir(&kept).unwrap();
    drop(Folder::claim(home.path()).unwrap());
    assert!(kept.exists());
}

#[test]
fn what_is_no_folder_of_a_demo_stays() {
    let home = tempfile::tempdir().unwrap();
    let notes = home.path().join("notes");
    std::fs::create_dir(&notes).unwrap();
    drop(Folder::claim(home.path()).unwrap());
    assert!(notes.exists());
}
