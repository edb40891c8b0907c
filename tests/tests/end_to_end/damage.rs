//! A replica whose data is not what its log made it.

use std::path::Path;

use quorate_server::partition_key;
use quorate_tests::{Cluster, Reply};
use quorate_types::codec::{ROW_HEADER_BYTES, seal_row};
use redb::{Database, ReadableTable, TableDefinition};

/// The engine's rows: `[space u64 BE][key]` to a sealed row.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");

/// Changes the last byte of a user's row and seals it again, so that no
/// checksum tells.
fn flip(directory: &Path, key: &str) {
    let key = partition_key(key.as_bytes());
    let database = Database::open(directory.join("engine.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut rows = transaction.open_table(ROWS).unwrap();
        let found: Vec<(Vec<u8>, Vec<u8>)> = rows
            .iter()
            .unwrap()
            .map(|row| row.unwrap())
            .filter(|(stored, _)| stored.value().get(8..) == Some(&key[..]))
            .map(|(stored, row)| (stored.value().to_vec(), row.value().to_vec()))
            .collect();
        let [(stored, row)] = found.as_slice() else {
            panic!("the engine has {} rows of the key", found.len());
        };
        let mut payload = row[ROW_HEADER_BYTES..].to_vec();
        *payload.last_mut().unwrap() ^= 1;
        rows.insert(stored.as_slice(), &*seal_row(stored, row[0], &payload)).unwrap();
    }
    transaction.commit().unwrap();
}

#[test]
fn one_flipped_row_on_one_replica_shows_in_the_state_hash() {
    let mut cluster = Cluster::start(3);
    let mut client = cluster.client(1);
    for number in 0..50 {
        client.must(&format!("SET row:{number} value-{number}"));
    }
    cluster.wait_agreement();

    cluster.terminate(3);
    flip(&cluster.directory(3), "row:7");
    cluster.restart(3);

    let shard = cluster.admin(1).shard_of("row:7").unwrap().id;
    // Once all are at the same index again, the hashes differ there and only
    // there.
    quorate_tests::eventually("the replicas are level", std::time::Duration::from_secs(30), || {
        let views = [1, 2, 3].map(|id| cluster.admin(id).shards());
        let [Ok(first), Ok(second), Ok(third)] = &views else { return Err(format!("{views:?}")) };
        for ((a, b), c) in first.iter().zip(second).zip(third) {
            if a.applied.is_none() || a.applied != b.applied || a.applied != c.applied {
                return Err(format!("{a:?} {b:?} {c:?}"));
            }
        }
        for ((a, b), c) in first.iter().zip(second).zip(third) {
            assert_eq!(a.state_hash, b.state_hash, "healthy replicas agree: {a:?} {b:?}");
            let agrees = a.state_hash == c.state_hash;
            assert_eq!(agrees, a.id != shard, "shard {}: {a:?} {c:?}", a.id);
        }
        Ok(())
    });
    assert_eq!(cluster.insist(1, "GET row:8"), Reply::bulk("value-8"));
}
