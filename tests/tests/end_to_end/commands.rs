//! Any command, on any key, through any node.

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_tests::{Client, Cluster, Execution, Reply, Words, words};

/// Keys enough to lie in several shards, with a prefix of their own.
fn spread(prefix: &str) -> Vec<String> {
    (0..24).map(|number| format!("{prefix}:{number}")).collect()
}

fn command(name: &str, arguments: impl IntoIterator<Item = String>) -> Words {
    std::iter::once(name.to_owned()).chain(arguments).collect()
}

/// Each key followed by a value.
fn pairs(keys: &[String], value: &str) -> Vec<String> {
    keys.iter().flat_map(|key| [key.clone(), value.to_owned()]).collect()
}

fn assert_crosses_shards(cluster: &Cluster, keys: &[String]) {
    let shards = cluster.admin(1).shards().unwrap();
    let touched =
        shards.iter().filter(|shard| keys.iter().any(|key| shard.holds(key.as_str()))).count();
    assert!(touched >= 4, "{keys:?} lie in {touched} shards");
}

#[test]
fn every_node_answers_any_command_for_any_key() {
    let cluster = Cluster::start(3);
    let mut nodes: Vec<Client> = [1, 2, 3].map(|id| cluster.client(id)).into();

    let keys = spread("any");
    assert_crosses_shards(&cluster, &keys);
    for (turn, key) in keys.iter().enumerate() {
        nodes[turn % 3].must(&format!("SET {key} {turn}"));
        for node in &mut nodes {
            assert_eq!(node.must(&format!("GET {key}")), Reply::Bulk(turn.to_string()));
        }
        assert_eq!(nodes[(turn + 1) % 3].must(&format!("APPEND {key} x")), length(turn, 1));
        assert_eq!(nodes[(turn + 2) % 3].must(&format!("STRLEN {key}")), length(turn, 1));
    }
    for expected in 1..=9 {
        let counted = nodes[expected % 3].must("INCR counter");
        assert_eq!(counted, Reply::Int(i64::try_from(expected).unwrap()));
    }
    assert_eq!(nodes[0].must("GETDEL counter"), Reply::bulk("9"));
    assert_eq!(nodes[1].must("GET counter"), Reply::Nil);

    multi_key_commands_are_one_transaction(&mut nodes);
    a_transaction_spans_shards(&mut nodes);
    whole_database_commands_see_every_shard(&mut nodes);
}

fn length(number: usize, more: usize) -> Reply {
    Reply::Int(i64::try_from(number.to_string().len() + more).unwrap())
}

fn multi_key_commands_are_one_transaction(nodes: &mut [Client]) {
    let keys = spread("multi");
    let count = i64::try_from(keys.len()).unwrap();
    let run = |node: &mut Client, command: Words| node.run(command).unwrap();

    assert_eq!(run(&mut nodes[0], command("MSET", pairs(&keys, "1"))), Reply::ok());
    for node in nodes.iter_mut() {
        let all = run(node, command("MGET", keys.clone())).elements();
        assert_eq!(all, vec![Reply::bulk("1"); keys.len()]);
        assert_eq!(run(node, command("EXISTS", keys.clone())), Reply::Int(count));
    }

    // One key of many exists: none is set.
    let mut fresh = spread("fresh");
    fresh.push(keys[7].clone());
    assert_eq!(run(&mut nodes[1], command("MSETNX", pairs(&fresh, "2"))), Reply::Int(0));
    assert_eq!(run(&mut nodes[2], command("EXISTS", fresh.clone())), Reply::Int(1));
    fresh.pop();
    assert_eq!(run(&mut nodes[2], command("MSETNX", pairs(&fresh, "2"))), Reply::Int(1));
    assert_eq!(run(&mut nodes[0], command("EXISTS", fresh.clone())), Reply::Int(count));

    // A key that is named twice exists twice, and is deleted once.
    let twice = [fresh.clone(), fresh[..3].to_vec(), vec!["missing".to_owned()]].concat();
    assert_eq!(run(&mut nodes[0], command("EXISTS", twice.clone())), Reply::Int(count + 3));
    assert_eq!(run(&mut nodes[1], command("DEL", twice.clone())), Reply::Int(count));
    assert_eq!(run(&mut nodes[2], command("DEL", twice)), Reply::Int(0));
}

fn a_transaction_spans_shards(nodes: &mut [Client]) {
    let keys = spread("exec");
    let commands: Vec<Words> = keys
        .iter()
        .flat_map(|key| [words(&format!("INCRBY {key} 5")), words(&format!("GET {key}"))])
        .collect();
    for (times, node) in (1..).zip(nodes.iter_mut()) {
        let Execution::Done(replies) = node.transaction(&commands).unwrap() else {
            panic!("nothing was watched");
        };
        let value = 5 * times;
        let expected = [Reply::Int(value), Reply::Bulk(value.to_string())];
        assert!(replies.chunks(2).all(|pair| pair == expected), "{replies:?}");
    }

    // A command that fails inside leaves the others their effect, as in Redis.
    nodes[0].must("SET text a");
    let replies = nodes[1].must_execute(&["SET before 1", "INCR text", "SET after 1"]);
    assert_eq!((&replies[0], &replies[2]), (&Reply::ok(), &Reply::ok()));
    assert!(matches!(&replies[1], Reply::Error(text) if text.starts_with("ERR value is not an")));
    assert_eq!(nodes[2].must("EXISTS before after"), Reply::Int(2));

    // A command that cannot be queued takes all others with it.
    let wrong = [words("MULTI"), words("SET discarded 1"), words("SET wrong"), words("EXEC")];
    let replies = nodes[0].pipeline(&wrong).unwrap();
    assert!(matches!(&replies[3], Reply::Error(text) if text.starts_with("EXECABORT")));
    assert_eq!(nodes[1].must("EXISTS discarded"), Reply::Int(0));
}

fn whole_database_commands_see_every_shard(nodes: &mut [Client]) {
    assert_eq!(nodes[0].must("FLUSHALL"), Reply::ok());
    assert_eq!(nodes[1].must("DBSIZE"), Reply::Int(0));
    let keys = spread("whole");
    nodes[2].run(command("MSET", pairs(&keys, "v"))).unwrap();
    assert_eq!(nodes[1].must("DBSIZE"), Reply::Int(24));
    let sorted = |replies: Vec<Reply>| {
        let mut texts: Vec<String> =
            replies.iter().filter_map(|reply| reply.text().map(str::to_owned)).collect();
        texts.sort();
        texts
    };
    let mut expected = keys.clone();
    expected.sort();
    assert_eq!(sorted(nodes[0].must("KEYS whole:*").elements()), expected);

    assert_eq!(scan(&mut nodes[1], "0", usize::MAX).1, expected.into_iter().collect());
}

/// Walks from a cursor on, for some pages at the most; returns where it stands
/// and what it found.
fn scan(node: &mut Client, cursor: &str, pages: usize) -> (String, BTreeSet<String>) {
    let (mut cursor, mut found) = (cursor.to_owned(), BTreeSet::new());
    for _ in 0..pages {
        let mut page = node.must(&format!("SCAN {cursor} COUNT 5")).elements();
        let keys = page.remove(1).elements();
        found.extend(keys.iter().filter_map(|key| key.text().map(str::to_owned)));
        cursor = page[0].text().unwrap().to_owned();
        if cursor == "0" {
            break;
        }
    }
    (cursor, found)
}

/// Of three shards none but the first begins where a byte of the slot is zero.
#[test]
fn scan_finds_every_key_across_odd_borders_and_splits() {
    const SPLIT: Duration = Duration::from_secs(60);
    let cluster = Cluster::start_with_shards(3, 3);
    let mut nodes: Vec<Client> = [1, 2, 3].map(|id| cluster.client(id)).into();
    let one_slot = (0..100).map(|number| format!("{{tag}}:{number}"));
    let keys: Vec<String> = (0..300).map(|number| format!("k:{number}")).chain(one_slot).collect();
    nodes[0].run(command("MSET", pairs(&keys, "v"))).unwrap();
    let expected: BTreeSet<String> = keys.into_iter().collect();
    for node in &mut nodes {
        assert_eq!(scan(node, "0", usize::MAX), ("0".to_owned(), expected.clone()));
    }

    // Each walk has begun before the shards are split, and goes on after.
    let begun: Vec<_> = (1..).zip(&mut nodes).map(|(n, node)| scan(node, "0", 20 * n)).collect();
    for shard in cluster.admin(1).shards().unwrap() {
        let path = format!("/v1/shards/{}/split", shard.id);
        let split = cluster.admin(2).post(&path, &serde_json::json!({})).unwrap();
        cluster.wait_migrated(&split.expect("a split is a migration"), SPLIT);
    }
    assert_eq!(cluster.admin(1).shards().unwrap().len(), 6);
    for ((cursor, mut found), node) in begun.into_iter().zip(&mut nodes) {
        assert_ne!(cursor, "0", "the walk was over before the split");
        found.extend(scan(node, &cursor, usize::MAX).1);
        assert_eq!(found, expected);
        assert_eq!(scan(node, "0", usize::MAX), ("0".to_owned(), expected.clone()));
    }
}

#[test]
fn watch_notices_a_change_and_a_change_back() {
    let cluster = Cluster::start(3);
    let (mut watcher, mut other) = (cluster.client(1), cluster.client(2));
    // What happens between WATCH and EXEC, and whether it is a change.
    let cases: [(&str, &[&str], bool); 8] = [
        ("nothing", &[], false),
        ("a read", &["GET watched"], false),
        ("another key", &["SET neighbour 1"], false),
        ("another value", &["SET watched other"], true),
        ("another value and back", &["SET watched other", "SET watched first"], true),
        ("the same value", &["SET watched first"], true),
        ("deleted and recreated", &["DEL watched", "SET watched first"], true),
        ("swept and recreated", &["FLUSHALL", "SET watched first"], true),
    ];
    for (what, between, is_change) in cases {
        other.must("SET watched first");
        other.must("DEL written also:written");
        watcher.must("WATCH watched");
        for line in between {
            other.must(line);
        }
        let commands = ["SET written 1", "SET also:written 1"].map(words);
        let outcome = watcher.transaction(&commands).unwrap();
        assert_eq!(outcome == Execution::Conflict, is_change, "{what}: {outcome:?}");
        let written = if is_change { 0 } else { 2 };
        assert_eq!(other.must("EXISTS written also:written"), Reply::Int(written), "{what}");
    }

    // A missing key that came and went has changed too.
    watcher.must("WATCH never:there");
    other.must("SET never:there 1");
    other.must("DEL never:there");
    assert_eq!(watcher.transaction(&[words("SET written 1")]), Ok(Execution::Conflict));

    // UNWATCH forgets, and so does an EXEC.
    watcher.must("WATCH watched");
    other.must("SET watched other");
    watcher.must("UNWATCH");
    assert!(matches!(watcher.transaction(&[words("GET watched")]), Ok(Execution::Done(_))));
}
