//! Commands on their way to the metadata's leader, and views on their way back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::drivers::{Group, Others};
use common::*;
use quorate_meta::{
    AdminError, Command, Cut, Directory, JournalWrite, MetadataClient, Operator, Ordered, Registry,
    Reply, Request, Response, SplitPhase, Splitting, shard_group,
};
use quorate_types::runtime::BoxFuture;
use quorate_types::{Blob, Epoch, GroupId, NodeId, ShardId};
use tokio::time::Instant;

fn knows(node: u64, others: &[u64]) -> Arc<Directory> {
    let address = |other: &u64| (NodeId(*other), format!("n{other}:7000"));
    Arc::new(Directory::new(NodeId(node), others.iter().map(address).collect::<BTreeMap<_, _>>()))
}

/// A client on node 1, which leads a bootstrapped group of its own.
fn leader() -> (Arc<Group>, MetadataClient) {
    let directory = knows(1, &[]);
    let group = Group::new(Some(Arc::clone(&directory)));
    group.apply(&Command::Bootstrap(bootstrap(3, &["m"])).encode().unwrap());
    let client = MetadataClient::new(directory, Arc::new(Others::silent()));
    client.set_replica(Some(Arc::clone(&group) as _));
    (group, client)
}

/// A client on node 9, which has no replica.
fn outsider(others: Others) -> (Arc<Others>, MetadataClient) {
    let others = Arc::new(others);
    let client = MetadataClient::new(knows(9, &[1, 2, 3]), Arc::clone(&others) as _);
    (others, client)
}

fn serve(group: &Group, request: &Request) -> Response {
    match request {
        Request::Propose(entry) => Response::Proposed(Blob(group.apply(entry))),
        Request::View(_) => Response::View(Blob(group.edit(|state| state.registry.encode()))),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_finds_its_way_to_the_leader_and_the_next_one_goes_straight() {
    let group = Group::new(None);
    let led = Arc::clone(&group);
    let (others, client) = outsider(Others::answering(move |to, request| match to.0 {
        1 => None,
        2 => Some(Response::NotLeader(Some(NodeId(3)))),
        _ => Some(serve(&led, &request)),
    }));
    client.run(&Command::Bootstrap(bootstrap(3, &[]))).await.unwrap();
    assert_eq!(others.asked(), [1, 2, 3].map(NodeId));
    client.run(&Command::Join(node(4))).await.unwrap();
    assert_eq!(others.asked().last(), Some(&NodeId(3)));
    assert_eq!(others.asked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn without_a_leader_the_caller_hears_so_in_the_end() {
    let (_, client) = outsider(Others::silent());
    let started = Instant::now();
    let outcome = client.run(&Command::Join(node(4))).await;
    assert!(matches!(outcome, Err(AdminError::Unavailable(_))), "{outcome:?}");
    assert!(started.elapsed().as_secs() < 11);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_tried_again() {
    let (group, client) = leader();
    let other_disk = quorate_meta::NodeSpec { disk: disk(99), ..node(2) };
    let refused = client.run(&Command::Join(other_disk)).await.unwrap_err();
    assert!(matches!(&refused, AdminError::Refused(reason) if reason.contains("new id")));
    assert_eq!(group.edit(|state| state.commands.len()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lost_outcome_is_asked_for_by_repeating_the_command() {
    let (group, client) = leader();
    group.edit(|state| state.lost_outcomes = 2);
    let reply = client.run(&Command::Join(node(4))).await.unwrap();
    assert!(matches!(reply, Reply::Done { .. }));
    assert_eq!(client.directory().members().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_node_without_a_replica_fetches_what_is_newer() {
    let group = Group::new(None);
    group.apply(&Command::Bootstrap(bootstrap(3, &["m"])).encode().unwrap());
    let shown = Arc::clone(&group);
    let (_, client) = outsider(Others::answering(move |to, request| match to.0 {
        1 => Some(Response::NotLeader(None)),
        2 => Some(Response::View("no registry".into())),
        _ => Some(serve(&shown, &request)),
    }));
    client.refresh().await;
    assert_eq!(client.directory().view().applied(), 1);
    assert_eq!(client.directory().address(NodeId(2)), Some("n2:7000".to_owned()));
    let before = client.directory().view();
    client.directory().learn_view(Registry::default().view());
    assert_eq!(client.directory().view(), before, "an older view is no news");
}

fn journal(expected: Option<u64>) -> JournalWrite {
    JournalWrite { id: MOVE, expected, row: "checkpoint".into(), finished: false }
}

#[tokio::test(start_paused = true)]
async fn a_journal_row_that_somebody_else_wrote_is_to_be_read_again() {
    let (_, client) = leader();
    client.journal(journal(None)).await.unwrap();
    let outcome = client.journal(journal(None)).await;
    assert!(matches!(outcome, Err(AdminError::Unavailable(_))), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn a_move_ends_in_the_map_before_its_row_is_closed() {
    let (group, client) = leader();
    client.run(&Command::Join(node(4))).await.unwrap();
    let shard = client.directory().view().locate(b"a").unwrap().1.group;
    let generation = client.directory().view().group(shard).unwrap().generation;
    let begin = quorate_meta::BeginMove {
        migration: MOVE,
        group: shard,
        change: replace(1, 4),
        generation,
    };
    client.run(&Command::BeginMove(begin)).await.unwrap();
    client.journal(journal(None)).await.unwrap();
    client.finish_move(journal(Some(1)), true).await.unwrap();
    // Again, as after a lost answer: the move has ended and the row is final.
    assert!(client.finish_move(journal(Some(1)), true).await.is_err());
    let commands = group.edit(|state| state.commands.clone());
    let ends = commands.iter().filter(|command| matches!(command, Command::CommitMove { .. }));
    assert_eq!(ends.count(), 1);
    let view = client.directory().view();
    assert!(!view.operator(MOVE).is_some_and(Operator::is_running));
    assert!(view.journal_row(MOVE).unwrap().finished);
    assert_eq!(view.open_journal().count(), 0);
}

/// A sequencer that answers with one and the same. Children are born at once.
struct Fixed(Result<Ordered, AdminError>);

impl Splitting for Fixed {
    fn order(&self, cut: Cut) -> BoxFuture<Result<Ordered, AdminError>> {
        assert_eq!((cut.at, cut.members.len(), cut.epoch.0), ("f".into(), 3, 2));
        let answer = self.0.clone();
        Box::pin(async move { answer })
    }

    fn is_born(&self, child: GroupId) -> BoxFuture<bool> {
        assert_eq!(child, shard_group(ShardId(3)));
        Box::pin(std::future::ready(true))
    }
}

/// Brings a split to the phase `Ordering`.
async fn ordering() -> MetadataClient {
    let (_, client) = leader();
    client.run(&Host::bootstrapped().begin_split(1, "f")).await.unwrap();
    step(&client, &Fixed(Err(AdminError::Refused("not asked yet".into())))).await.unwrap();
    assert_eq!(phase(&client), SplitPhase::Ordering);
    client
}

async fn step(client: &MetadataClient, sequencer: &Fixed) -> Result<(), AdminError> {
    client.advance_split(SPLIT, sequencer).await
}

fn phase(client: &MetadataClient) -> SplitPhase {
    split_of(client.directory().view().operator(SPLIT).unwrap().clone()).phase
}

#[tokio::test(start_paused = true)]
async fn a_split_is_ordered_recorded_and_installed() {
    let client = ordering().await;
    let now = Fixed(Ok(Ordered::Now(Epoch(9))));
    step(&client, &now).await.unwrap();
    assert_eq!(phase(&client), ORDERED);
    step(&client, &now).await.unwrap();
    assert!(matches!(phase(&client), SplitPhase::Installed { .. }));
    assert_eq!(client.directory().view().shards().len(), 3);
    assert!(client.directory().view().operator(SPLIT).unwrap().is_running());
    step(&client, &now).await.unwrap();
    assert!(!client.directory().view().operator(SPLIT).unwrap().is_running());
    step(&client, &now).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_split_that_an_earlier_leader_ordered_is_installed_at_once() {
    let client = ordering().await;
    step(&client, &Fixed(Ok(Ordered::Before))).await.unwrap();
    assert!(matches!(phase(&client), SplitPhase::Installed { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_sequencer_that_cannot_tell_leaves_the_split_where_it_is() {
    let client = ordering().await;
    let unknown = Fixed(Err(AdminError::Unavailable("no sequencer".into())));
    assert!(step(&client, &unknown).await.is_err());
    assert_eq!(phase(&client), SplitPhase::Ordering);
}

#[tokio::test(start_paused = true)]
async fn a_split_that_is_in_the_map_is_not_asked_for_with_another_epoch() {
    let client = ordering().await;
    step(&client, &Fixed(Ok(Ordered::Before))).await.unwrap();
    // The parent's epoch is 2 by now. `Fixed` insists on cuts for that one.
    let late = Fixed(Err(AdminError::Refused("nobody asks".into())));
    step(&client, &late).await.unwrap();
    step(&client, &late).await.unwrap();
}
