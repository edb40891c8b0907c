//! The mesh against the suite of its port, and what the suites of all ports of
//! this crate have to refuse. A suite that finds no planted flaw proves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

#[path = "conformance/flawed_log.rs"]
mod flawed_log;
#[path = "conformance/hub.rs"]
mod hub;
#[path = "conformance/tape.rs"]
mod tape;

use std::collections::BTreeMap;
use std::sync::Arc;

use flawed_log::{LogFlaw, storage};
use hub::{Hub, HubFlaw};
use parking_lot::Mutex;
use quorate_raft::conformance::{
    End, Net, log_engine_suite, network_suite, state_machine_suite, transport_suite,
};
use quorate_raft::tcp::{Mesh, MeshConfig, Service};
use quorate_raft::{ChannelTransport, Transport};
use quorate_types::hello::{Hello, Protocol};
use quorate_types::{Blob, DiskId, NodeId};
use tape::{TapeFlaw, commands, subject};
use tokio::net::TcpListener;

type Nodes = Vec<(NodeId, Arc<dyn Service>)>;

fn hello(node: NodeId) -> Hello {
    Hello {
        protocol: Protocol::Mesh,
        lane: 0,
        cluster: None,
        node,
        disk: DiskId(u128::from(node.0)),
        incarnation: 1,
        address: Blob::new(),
    }
}

/// Meshes that listen on the loopback interface.
async fn meshes(nodes: Nodes) -> Net {
    let book: Arc<Mutex<BTreeMap<NodeId, String>>> = Arc::default();
    let mut ends = Vec::new();
    for (node, service) in nodes {
        let addresses = Arc::clone(&book);
        let address = move |node: NodeId| addresses.lock().get(&node).cloned();
        let mesh = Mesh::new(MeshConfig::default(), move || hello(node), address);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        mesh.listen(listener, service, Arc::new(move |_: &Hello| Ok(hello(node))));
        book.lock().insert(node, address.clone());
        ends.push(End { network: Arc::new(mesh), address, hello: hello(node) });
    }
    // Bound and let go again: nobody is there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    Net { ends, nowhere: free.local_addr().unwrap().to_string() }
}

#[tokio::test]
async fn the_mesh_conforms() {
    network_suite(meshes).await;
}

#[tokio::test]
async fn a_channel_of_the_mesh_conforms() {
    let channel_one = |nodes| async move {
        let ends = meshes(nodes).await.ends.into_iter();
        let transport = |end: End| Arc::new(ChannelTransport::new(end.network, 1));
        ends.map(|end| transport(end) as Arc<dyn Transport>).collect()
    };
    transport_suite(channel_one).await;
}

#[tokio::test(start_paused = true)]
async fn the_flawless_network_conforms() {
    network_suite(|nodes| Hub::net(nodes, HubFlaw::None)).await;
}

#[tokio::test(start_paused = true)]
async fn the_flawless_machine_conforms() {
    state_machine_suite(|| subject(TapeFlaw::None), &commands()).await;
}

macro_rules! networks_refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test(start_paused = true)]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            network_suite(|nodes| Hub::net(nodes, HubFlaw::$flaw)).await;
        }
    )+};
}

networks_refused! {
    a_network_that_answers_another_channels_caller_is_refused, OtherChannel, "waits for *its* reply";
    a_network_that_forgets_the_caller_is_refused, OtherCaller, "waits for *its* reply";
    a_network_that_swaps_replies_is_refused, SwapsReplies, "waits for *its* reply";
    a_network_that_waits_to_be_polled_is_refused, Lazy, "it is queued when `call` returns";
    a_network_that_overtakes_itself_is_refused, Overtakes, "in the order of calls per lane";
    a_refusal_that_is_a_reply_is_refused, RefusalIsReply, "`TransportError::Rejected`";
    a_network_without_deadlines_is_refused, NoDeadline, "`TransportError::Deadline` has not come";
    a_network_with_one_lane_is_refused, OneLane, "`Lane`: what clients ask for never holds up";
    a_network_that_works_on_for_nobody_is_refused, WorksOn, "the end of work for callers";
    a_network_that_guesses_addresses_is_refused, GuessesNodes, "`TransportError::Unreachable`";
    a_message_on_every_channel_is_refused, SendsEverywhere, "`send` takes a message to one peer";
    a_network_that_drops_each_message_is_refused, SendsNothing, "`send` may drop, but not each";
    a_network_that_introduces_itself_is_refused, IntroducesSelf, "`introduce` learns who is there";
    a_network_that_sees_ghosts_is_refused, SeesGhosts, "`None` while nobody answers";
}

macro_rules! machines_refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test(start_paused = true)]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            state_machine_suite(|| subject(TapeFlaw::$flaw), &commands()).await;
        }
    )+};
}

machines_refused! {
    a_machine_that_sees_batches_is_refused, SeesBatches, "however they are cut";
    a_machine_that_skips_blanks_is_refused, SkipsBlanks, "returns one outcome per entry";
    a_host_row_apart_from_its_effects_is_refused, RowApart, "stored atomically with the effects";
    a_flush_that_does_nothing_is_refused, FlushLies, "`StateMachine::flush` makes everything";
    a_flush_that_loses_the_row_is_refused, FlushLosesRow, "its host row too";
    a_snapshot_that_moves_is_refused, SnapshotMoves, "belongs to exactly this view";
    a_staging_that_shows_is_refused, StagingShows, "receives a snapshot beside the current state";
    an_installation_that_is_lost_is_refused, InstallNotDurable, "`StateMachine::installed`: durable";
    an_installation_that_adds_is_refused, InstallAdds, "on return from `StateMachine::installed`";
    an_installation_with_a_row_of_its_own_is_refused, InstallKeepsRow, "`StateMachine::";
    empty_chunks_are_refused, EmptyChunks, "a chunk is not empty";
    a_snapshot_in_one_piece_is_refused, OneChunk, "about `bytes_max` bytes";
}

#[tokio::test]
async fn the_flawless_log_conforms() {
    log_engine_suite(|| storage(LogFlaw::None)).await;
}

macro_rules! logs_refused {
    ($($test:ident, $flaw:ident, $sentence:tt;)+) => {$(
        #[tokio::test]
        #[should_panic(expected = $sentence)]
        async fn $test() {
            log_engine_suite(|| storage(LogFlaw::$flaw)).await;
        }
    )+};
}

logs_refused! {
    a_log_that_loses_a_vote_is_refused, VoteLost, "`LogEngine::save_vote`";
    a_log_that_truncates_nothing_is_refused, TruncatesNothing, "`LogEngine::truncate` removes";
    a_log_that_purges_nothing_is_refused, PurgesNothing, "`LogEngine::purge` removes";
    a_log_that_reads_without_bound_is_refused, ReadsUnbounded, "at least one";
    a_log_that_forgets_nothing_is_refused, ForgetsNothing, "`LogEngine::forget`";
    a_log_that_hides_a_gap_is_refused, GapUntold, "the completion is called with the same error";
    a_log_that_appends_one_of_all_is_refused, OneOfAll, "`LogEngine::append_all` appends all";
    a_log_that_takes_after_its_end_is_refused, ClosedTakes, "`LogEngine::close`";
}
