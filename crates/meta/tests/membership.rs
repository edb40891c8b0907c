//! Founding a cluster, joining one, coming back, and admitting others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::drivers::{Group, Others};
use common::*;
use quorate_meta::{
    BoxError, Command, Directory, Host as Opener, IdentityFile, InitialCluster, InitialFlaw,
    Membership, MembershipConfig, MembershipError, MetadataClient, NodeSpec, Request, Response,
};
use quorate_types::disk::DirectoryDisk;
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, ClusterId, NodeId, ReplicaId};

/// Which replicas of the metadata group were opened.
#[derive(Default)]
struct Opened(Mutex<Vec<ReplicaId>>);

impl Opener for Opened {
    fn open_metadata(&self, replica: ReplicaId) -> BoxFuture<Result<(), BoxError>> {
        self.0.lock().unwrap().push(replica);
        Box::pin(async { Ok(()) })
    }
}

/// A node, and what surrounds it.
struct Rig {
    membership: Membership,
    client: Arc<MetadataClient>,
    identity: Arc<IdentityFile>,
    opened: Arc<Opened>,
    others: Arc<Others>,
    directory: tempfile::TempDir,
}

fn listed(nodes: u64) -> InitialCluster {
    let members = (1..=nodes).map(|id| (NodeId(id), format!("n{id}:7000"))).collect();
    InitialCluster { members, shards: 2, replicas: 3, split_keys: Vec::new() }
}

fn rig(id: u64, initial: InitialCluster, join: &[&str], others: Others) -> Rig {
    let directory = tempfile::tempdir().unwrap();
    let disk = DirectoryDisk::open(directory.path()).unwrap();
    let identity = Arc::new(IdentityFile::open(&disk, NodeId(id)).unwrap());
    let addresses = initial.members.iter().cloned().collect::<BTreeMap<_, _>>();
    let known = Arc::new(Directory::new(NodeId(id), addresses));
    let others = Arc::new(others);
    let client = Arc::new(MetadataClient::new(known, Arc::clone(&others) as _));
    let opened = Arc::<Opened>::default();
    let own = NodeSpec { disk: identity.identity().disk, ..node(id) };
    let join = join.iter().map(|address| (*address).to_owned()).collect();
    let config = MembershipConfig { own, initial, join };
    let host = Arc::clone(&opened) as Arc<dyn Opener>;
    let membership = Membership::new(config, Arc::clone(&client), Arc::clone(&identity), host);
    Rig { membership, client, identity, opened, others, directory }
}

impl Rig {
    /// Gives the node a metadata group of one.
    fn led(&self) -> Arc<Group> {
        let group = Group::new(Some(Arc::clone(self.client.directory())));
        self.client.set_replica(Some(Arc::clone(&group) as _));
        group
    }

    async fn handle(&self, request: Request) -> Response {
        let response = self.membership.handle(&request.to_bytes()).await.unwrap();
        Response::from_bytes(&response).unwrap()
    }
}

/// A registry of three nodes, encoded.
fn founded() -> Response {
    let group = Group::new(None);
    group.apply(&Command::Bootstrap(bootstrap(3, &["m"])).encode().unwrap());
    Response::View(Blob(group.edit(|state| state.registry.encode())))
}

fn report(id: u64, digest: u64) -> Request {
    Request::Report { spec: node(id), digest }
}

#[tokio::test(start_paused = true)]
async fn a_single_node_founds_its_cluster_and_binds_its_directory() {
    let rig = rig(1, listed(0), &[], Others::silent());
    let group = rig.led();
    let cluster = rig.membership.become_member().await.unwrap();
    assert_eq!(cluster, ClusterId(rig.identity.identity().disk.0));
    assert_eq!(*rig.opened.0.lock().unwrap(), [ReplicaId(1)]);
    assert_eq!(group.edit(|state| state.initialized.len()), 1);
    let disk = DirectoryDisk::open(rig.directory.path()).unwrap();
    drop((rig.membership, rig.identity));
    let next_life = IdentityFile::open(&disk, NodeId(1)).unwrap();
    assert_eq!(next_life.identity().cluster, Some(cluster));
}

/// In the log it would halt every replica of the metadata, now and after every
/// restart.
#[tokio::test(start_paused = true)]
async fn what_no_replica_could_read_is_not_proposed() {
    let rig = rig(1, listed(0), &[], Others::silent());
    let group = rig.led();
    let newer = [&[quorate_meta::COMMAND_VERSION + 1][..], b"from a later release"].concat();
    for entry in [&b""[..], b"no command", &newer] {
        let response = rig.handle(Request::Propose(entry.into())).await;
        assert!(matches!(response, Response::Refused(_)), "{response:?}");
    }
    assert!(group.edit(|state| state.commands.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn the_lowest_node_waits_for_every_founder_and_names_their_disks() {
    let rig = rig(1, listed(3), &[], Others::silent());
    let group = rig.led();
    let others_report = async {
        assert_eq!(rig.handle(report(2, listed(3).digest())).await, Response::Cluster(None));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(group.edit(|state| state.commands.is_empty()), "one has not reported");
        assert_eq!(rig.handle(report(3, listed(3).digest())).await, Response::Cluster(None));
    };
    let (founded, ()) = tokio::join!(rig.membership.become_member(), others_report);
    let reply = rig.handle(report(3, listed(3).digest())).await;
    assert_eq!(reply, Response::Cluster(Some(founded.unwrap())));
    let commands = group.edit(|state| state.commands.clone());
    let [Command::Bootstrap(first)] = &commands[..] else { panic!("{commands:?}") };
    let disks: Vec<_> = first.nodes.iter().skip(1).map(|spec| spec.disk).collect();
    assert_eq!(disks, [disk(2), disk(3)]);
    assert_eq!((first.replicas_per_shard, first.split_keys.len()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn a_founder_with_another_configuration_or_none_of_the_list_is_refused() {
    let rig = rig(1, listed(3), &[], Others::silent());
    for request in [report(2, listed(4).digest()), report(9, listed(3).digest())] {
        let response = rig.handle(request).await;
        assert!(matches!(response, Response::Refused(_)), "{response:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_founder_reports_until_there_is_a_cluster() {
    let reports = Mutex::new(0);
    let rig = rig(
        4,
        listed(4),
        &[],
        Others::answering(move |to, request| match request {
            Request::Report { .. } => {
                assert_eq!(to, NodeId(1));
                *reports.lock().unwrap() += 1;
                let is_founded = *reports.lock().unwrap() > 3;
                Some(Response::Cluster(is_founded.then_some(ClusterId(77))))
            }
            _ => Some(founded()),
        }),
    );
    assert_eq!(rig.membership.become_member().await.unwrap(), ClusterId(77));
    assert_eq!(*rig.opened.0.lock().unwrap(), [], "the fourth founder has no replica");
}

#[tokio::test(start_paused = true)]
async fn a_founder_that_came_too_late_learns_from_others_that_the_first_is_down() {
    let rig = rig(3, listed(3), &[], Others::answering(|to, _| (to == NodeId(2)).then(founded)));
    assert_eq!(rig.membership.become_member().await.unwrap(), ClusterId(77));
}

#[tokio::test(start_paused = true)]
async fn a_refused_founder_gives_up_and_stays_unbound() {
    let refuse = |_, _| Some(Response::Refused("another shard count".to_owned()));
    let rig = rig(2, listed(3), &[], Others::answering(refuse));
    let error = rig.membership.become_member().await.unwrap_err();
    assert!(matches!(&error, MembershipError::Refused(reason) if reason.contains("shard count")));
    assert_eq!(rig.identity.identity().cluster, None);
}

#[tokio::test(start_paused = true)]
async fn a_further_node_joins_through_whichever_member_answers() {
    let mut others = Others::answering(|to, request| match (to.0, request) {
        (1, _) => Some(Response::Unavailable("the cluster is being founded".to_owned())),
        (_, Request::Join(_)) => Some(Response::Cluster(Some(ClusterId(77)))),
        _ => Some(founded()),
    });
    others.at = [("a:1".to_owned(), NodeId(1)), ("b:2".to_owned(), NodeId(2))].into();
    let rig = rig(9, listed(0), &["down:0", "a:1", "b:2"], others);
    assert_eq!(rig.membership.become_member().await.unwrap(), ClusterId(77));
    assert_eq!(rig.others.asked(), [1, 2, 2].map(NodeId));
    assert_eq!(rig.membership.seeds().first(), Some(&"a:1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_welcome_hears_why() {
    let mut others = Others::silent();
    others.unwelcome.insert("a:1".to_owned());
    let rig = rig(9, listed(0), &["a:1"], others);
    let error = rig.membership.become_member().await.unwrap_err();
    assert!(matches!(&error, MembershipError::Refused(reason) if reason == "go away"));
}

#[tokio::test(start_paused = true)]
async fn a_member_admits_a_node_once_the_metadata_has() {
    let rig = rig(1, listed(0), &[], Others::silent());
    let group = rig.led();
    let early = rig.handle(Request::Join(node(2))).await;
    assert!(matches!(early, Response::Unavailable(_)), "{early:?}");
    let cluster = rig.membership.become_member().await.unwrap();
    assert_eq!(rig.handle(Request::Join(node(2))).await, Response::Cluster(Some(cluster)));
    let stranger = NodeSpec { disk: disk(50), ..node(2) };
    let refused = rig.handle(Request::Join(stranger)).await;
    assert!(matches!(&refused, Response::Refused(reason) if reason.contains("new id")));
    group.edit(|state| state.is_deposed = true);
    let later = rig.handle(Request::Join(node(3))).await;
    assert!(matches!(later, Response::Unavailable(_)), "{later:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_came_back_elsewhere_says_so() {
    let rig = rig(1, listed(0), &[], Others::silent());
    let group = rig.led();
    let own =
        NodeSpec { disk: rig.identity.identity().disk, address: "before:1".to_owned(), ..node(1) };
    let first = listed(0).bootstrap(&own, vec![own.clone()]);
    rig.identity.adopt(first.cluster).unwrap();
    group.apply(&Command::Bootstrap(first).encode().unwrap());
    rig.membership.become_member().await.unwrap();
    rig.membership.become_member().await.unwrap();
    assert_eq!(rig.client.directory().address(NodeId(1)), Some("n1:7000".to_owned()));
    assert_eq!(group.edit(|state| state.commands.len()), 2, "the second time it was known");
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_request_are_an_error() {
    let rig = rig(1, listed(0), &[], Others::silent());
    for bytes in [&b""[..], b"\x01nonsense", b"\x02"] {
        assert!(rig.membership.handle(bytes).await.is_err(), "{bytes:?}");
    }
}

#[test]
fn the_digest_covers_whatever_must_be_the_same_and_no_order() {
    let base = listed(3);
    let mut turned = base.clone();
    turned.members.reverse();
    assert_eq!(turned.digest(), base.digest());
    let others = [
        listed(4),
        InitialCluster { shards: 3, ..base.clone() },
        InitialCluster { replicas: 1, ..base.clone() },
        InitialCluster { split_keys: vec![b"m".to_vec()], ..base.clone() },
    ];
    for other in others {
        assert_ne!(other.digest(), base.digest(), "{other:?}");
    }
}

#[test]
fn shards_are_cut_evenly_unless_told_where() {
    let even = InitialCluster { shards: 4, ..listed(3) };
    assert_eq!(even.cuts(), [[0x40, 0], [0x80, 0], [0xc0, 0]]);
    assert_eq!(InitialCluster { shards: 1, ..listed(3) }.cuts(), Vec::<Vec<u8>>::new());
    let told = InitialCluster { split_keys: vec![b"m".to_vec()], ..listed(3) };
    assert_eq!(told.cuts(), [b"m"]);
}

#[test]
fn what_cannot_be_founded_is_told() {
    let flaw = |initial: InitialCluster| initial.check().unwrap_err();
    assert_eq!(listed(3).check(), Ok(()));
    assert_eq!(flaw(InitialCluster { shards: 0, ..listed(3) }), InitialFlaw::Shards);
    assert_eq!(flaw(InitialCluster { shards: 16_385, ..listed(3) }), InitialFlaw::Shards);
    assert_eq!(flaw(InitialCluster { replicas: 0, ..listed(3) }), InitialFlaw::Replicas);
    let cut = InitialCluster { shards: 3, split_keys: vec![b"m".to_vec()], ..listed(3) };
    assert_eq!(flaw(cut), InitialFlaw::SplitKeys);
}

/// Who is asked, and whether anybody there is against this node.
async fn ask_around(own: u64, join: &[&str], unwelcome: &str) -> Result<(), MembershipError> {
    let mut others = Others::silent();
    others.unwelcome.insert(unwelcome.to_owned());
    let join = join.iter().map(|address| (*address).to_owned()).collect();
    let config = MembershipConfig { own: node(own), initial: listed(3), join };
    config.ask_around(&others).await
}

#[tokio::test]
async fn whoever_refuses_the_disk_is_heard_before_anything_is_done() {
    for (join, unwelcome) in [(&[][..], "n3:7000"), (&["n9:7000"], "n9:7000")] {
        let refused = ask_around(1, join, unwelcome).await;
        assert!(matches!(refused, Err(MembershipError::Refused(_))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_node_does_not_ask_itself_and_silence_is_no_refusal() {
    assert!(ask_around(3, &["n9:7000"], "n3:7000").await.is_ok());
}
