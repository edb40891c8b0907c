//! Starts that must not be: one clear message, an exit status, no change.

use std::net::TcpListener;
use std::path::Path;

use quorate_tests::{Cluster, Refusal, Reply};

#[track_caller]
fn assert_says(refusal: &Refusal, words: &[&str]) {
    for word in words {
        assert!(refusal.message.contains(word), "'{word}' is missing from: {}", refusal.message);
    }
}

/// One message, not a stack of them.
#[track_caller]
fn assert_is_one_line(refusal: &Refusal) {
    assert_eq!(refusal.message.trim().lines().count(), 1, "{}", refusal.message);
    assert!(!refusal.message.contains("panicked"), "{}", refusal.message);
}

fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_wiped_member_must_join_under_a_new_id() {
    let mut cluster = Cluster::start(3);
    cluster.client(1).must("SET kept 1");
    cluster.kill(3);
    let wiped = cluster.path("wiped");
    for joins in [false, true] {
        let refusal = cluster.refused(3, &wiped, joins);
        assert_says(&refusal, &["join", "new id"]);
        assert_is_one_line(&refusal);
    }
    // The disk that did join is welcome, and the wiped one under a new id: the
    // refusals have not bound it to the old one.
    cluster.restart(3);
    assert_eq!(cluster.insist(3, "GET kept"), Reply::bulk("1"));
    std::fs::rename(wiped, cluster.directory(4)).unwrap();
    cluster.join(4);
    assert_eq!(cluster.insist(4, "GET kept"), Reply::bulk("1"));
}

/// A damage, and the file's bytes after it; `None` for a file that is gone.
type Damage = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const DAMAGES: [Damage; 3] = [
    ("flipped", |bytes| Some([&[bytes[0] ^ 1], &bytes[1..]].concat())),
    ("cut", |bytes| Some(bytes[..bytes.len() / 3].to_vec())),
    ("gone", |_| None),
];

/// The file in which the log ends.
fn newest_segment(directory: &Path) -> String {
    let number = |bytes: &[u8]| u64::from_be_bytes(bytes[16..24].try_into().unwrap());
    let segments = files(directory).into_iter().filter(|(name, _)| name.starts_with("log."));
    segments.max_by_key(|(_, bytes)| number(bytes)).expect("a log has files").0
}

#[test]
fn damaged_and_lost_files_are_refused_and_left_alone() {
    let mut cluster = Cluster::start(3);
    cluster.client(1).must("SET kept 1");
    cluster.terminate(2);
    let directory = cluster.directory(2);
    let log = newest_segment(&directory);
    for file in ["identity", &log, "engine.redb", "migrations.redb"] {
        let path = directory.join(file);
        let sound = std::fs::read(&path).unwrap();
        for (damage, apply) in DAMAGES {
            let is_restored = damage == "gone" && matches!(file, "migrations.redb" | "identity");
            if is_restored {
                continue; // Rebuilt from the metadata; and a wiped node, above.
            }
            match apply(&sound) {
                Some(damaged) => std::fs::write(&path, damaged).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let before = files(&directory);
            let refusal = cluster.refused(2, &directory, false);
            // Of a file that is gone only those know that tell of it.
            assert_says(&refusal, &[if damage == "gone" && file == log { "log" } else { file }]);
            assert_is_one_line(&refusal);
            let changed = files(&directory) != before;
            assert!(!changed, "{file} {damage}: the refusal changed the directory");
            std::fs::write(&path, &sound).unwrap();
        }
    }
    cluster.restart(2);
    assert_eq!(cluster.insist(2, "GET kept"), Reply::bulk("1"));
}

#[test]
fn a_directory_serves_its_own_node_and_cluster_only() {
    let mut cluster = Cluster::start(3);
    cluster.client(1).must("SET kept 1");

    let in_use = cluster.refused_elsewhere(2);
    assert_is_one_line(&in_use);

    cluster.terminate(2);
    cluster.kill(3);
    let before = files(&cluster.directory(2));
    let foreign = cluster.refused(3, &cluster.directory(2), false);
    assert_says(&foreign, &["belongs to node", "2", "3"]);
    assert_is_one_line(&foreign);
    assert!(files(&cluster.directory(2)) == before, "the refusal changed the directory");
    cluster.start_all();
    assert_eq!(cluster.insist(2, "GET kept"), Reply::bulk("1"));
}

#[test]
fn a_member_of_one_cluster_is_refused_by_another() {
    let theirs = {
        let mut other = Cluster::start(1);
        other.client(1).must("SET theirs 1");
        other.terminate(1);
        let kept = tempfile::TempDir::new().unwrap();
        for (name, bytes) in files(&other.directory(1)) {
            std::fs::write(kept.path().join(name), bytes).unwrap();
        }
        kept
    };
    let mut cluster = Cluster::start(3);
    cluster.client(2).must("SET ours 1");
    cluster.kill(1);
    let before = files(theirs.path());
    let refusal = cluster.refused(1, theirs.path(), false);
    assert_says(&refusal, &["cluster"]);
    assert!(files(theirs.path()) == before, "the refusal changed the directory");
    cluster.restart(1);
    assert_eq!(cluster.insist(1, "MGET ours theirs").elements(), [Reply::bulk("1"), Reply::Nil]);
}

#[test]
fn wrong_flags_and_taken_ports_are_told_clearly() {
    let cluster = Cluster::seats(3);
    let directory = cluster.path("never");
    let good = cluster.arguments(1, &directory, false);
    let without = |flag: &str| {
        let at = good.iter().position(|argument| argument == flag).unwrap();
        [&good[..at], &good[at + 2..]].concat()
    };
    let with = |flag: &str, value: &str| {
        let mut arguments = without(flag);
        arguments.extend([flag.into(), value.into()]);
        arguments
    };
    let cases: [(Vec<_>, &str); 7] = [
        (without("--node"), "--node"),
        (without("--dir"), "--dir"),
        (without("--initial-cluster"), "--initial-cluster"),
        (with("--node", "0"), "--node"),
        (with("--node", "9"), "does not name node 9"),
        (with("--gateway", "nonsense"), "IP:PORT"),
        (with("--initial-cluster", "1=127.0.0.1:1,1=127.0.0.1:2"), "named twice"),
    ];
    for (arguments, word) in cases {
        let refusal = Cluster::refused_with(&arguments);
        assert_says(&refusal, &[word]);
    }
    assert!(!directory.exists(), "a wrong flag made a directory");

    for flag in ["--addr", "--gateway", "--admin"] {
        let at = good.iter().position(|argument| argument == flag).unwrap() + 1;
        let address = good[at].to_str().unwrap().to_owned();
        let _taken = TcpListener::bind(&address).unwrap();
        let refusal = Cluster::refused_with(&good);
        assert_says(&refusal, &["cannot listen on", &address]);
        assert_is_one_line(&refusal);
        assert!(!directory.exists(), "a taken port made a directory");
    }
}

#[test]
fn a_log_is_opened_as_what_it_was_begun_as() {
    let mut cluster = Cluster::start(1);
    cluster.client(1).must("SET kept 1");
    cluster.terminate(1);
    let directory = cluster.directory(1);
    let before = files(&directory);
    let mut arguments = cluster.arguments(1, &directory, false);
    arguments.extend(["--log".into(), "redb".into()]);
    let refusal = Cluster::refused_with(&arguments);
    assert_says(&refusal, &["log.0", "configure the medium"]);
    assert_is_one_line(&refusal);
    assert!(files(&directory) == before, "the refusal changed the directory");
    cluster.restart(1);
    assert_eq!(cluster.insist(1, "GET kept"), Reply::bulk("1"));
}
