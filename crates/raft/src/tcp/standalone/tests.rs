#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::disk::DirectoryDisk;
use quorate_types::{GroupId, NodeId, ReplicaId};
use tokio::net::TcpListener;

use super::Standalone;
use crate::{GroupClass, GroupSpec, SmallMachine, SmallState};

#[derive(Debug, Default)]
struct Sum(u8);

impl SmallState for Sum {
    fn apply(&mut self, command: &[u8]) -> Bytes {
        self.0 += command.iter().sum::<u8>();
        self.save()
    }

    fn save(&self) -> Bytes {
        Bytes::copy_from_slice(&[self.0])
    }

    fn load(saved: &[u8]) -> Result<Self, String> {
        saved.first().copied().map(Self).ok_or_else(|| "nothing".to_owned())
    }
}

#[tokio::test]
async fn a_node_that_was_shut_down_begins_again_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut listener = Some(listener);
    for (command, sum) in [(1, 1), (2, 3), (4, 7)] {
        let listener = match listener.take() {
            Some(first) => first,
            // The mesh before has let go of it.
            None => TcpListener::bind(address).await.unwrap(),
        };
        let node = Standalone::new(NodeId(1), BTreeMap::new(), directory.path());
        let (host, mesh) = node.start(listener).unwrap();
        let disk = DirectoryDisk::open(directory.path()).unwrap();
        let machine = SmallMachine::<Sum>::open(&disk, "sum").unwrap();
        let machine = machine.seeded(&[(ReplicaId(11), NodeId(1))]);
        let (group, replica, class) = (GroupId(1), ReplicaId(11), GroupClass::Shard);
        let spec = GroupSpec { group, replica, class, machine: Box::new(machine) };
        let group = host.create(spec).await.unwrap();
        let mut leadership = group.leadership();
        leadership.wait_for(|now| now.leading && now.noop_applied).await.unwrap();
        let command = Bytes::copy_from_slice(&[command]);
        let proposed = group.propose(command, Duration::from_secs(5)).await.unwrap();
        assert_eq!(proposed.outcome, [sum][..]);
        host.shutdown().await.unwrap();
        mesh.shutdown();
        // The tasks of the mesh end at their next turn.
        while TcpListener::bind(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
