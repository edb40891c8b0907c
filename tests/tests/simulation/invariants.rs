//! What taps tell, made up: each check bites in one of these and is silent in
//! another. (Locks and the ends of operators, which the cores do not let a
//! test get wrong, are judged beside their checks.)

mod stage;

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate::Transaction;
use quorate::types::{
    Blob, ClientId, Epoch, GroupId, Hlc, KeyRange, MigrationId, NodeId, ReplicaId, RequestId,
    ShardEpoch,
};
use quorate_calvin::sequencer::Watermarks;
use quorate_calvin::shard::Verdict;
use quorate_calvin::{
    Call, Direct, Floors, MapShard, PeerMessage, SequencerBatch, SequencerCommand, ShardCommand,
    ShardMap, Slice, SliceBody, Submission,
};
use quorate_engine::{EngineError, Mutation};
use quorate_meta::{Bootstrap, Command, JournalWrite, NodeSpec};
use quorate_migration::{MigrationRow, Place};
use quorate_raft::{LogEntry, LogPosition, LogState, Vote};
use quorate_tests::sim::Model;

use stage::{
    LOW, METADATA, SEED_INDEX, SEQUENCER, Stage, UP, blank, command, entry, membership, node,
    replica,
};

/// The group that most of these are about, and its replicas.
const GROUP: GroupId = GroupId(17);

fn found(stage: &Stage) -> Vec<String> {
    let findings = stage.findings.all();
    for finding in &findings {
        println!("{finding}");
    }
    let mut rules: Vec<String> = findings.into_iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

fn vote(term: u64, candidate: u64, committed: bool) -> Vote {
    Vote { term, candidate: ReplicaId(candidate), committed }
}

fn request(client: u128, sequence: u64) -> RequestId {
    RequestId { client: ClientId(client), sequence, birth: Epoch(1), ack_below: 0 }
}

fn put(client: u128, sequence: u64, key: &str) -> Bytes {
    let call = Transaction::new().put(key, "value").call();
    let direct = Direct {
        request: request(client, sequence),
        epoch: ShardEpoch(1),
        time_millis: 1,
        seed: 1,
        call,
    };
    ShardCommand::Direct(direct).to_bytes()
}

fn map() -> ShardMap {
    let entry = |shard, range| MapShard { shard, range, epoch: ShardEpoch(1) };
    ShardMap { version: 1, shards: vec![entry(LOW, stage::low()), entry(UP, stage::up())].into() }
}

fn init() -> Bytes {
    SequencerCommand::Init { map: map(), retention_millis: 60_000 }.to_bytes()
}

/// A transaction on both shards.
fn submission(sequence: u64) -> Submission {
    let call = Transaction::new().put("a", "1").put("z", "1").call();
    Submission { request: request(9, sequence), call }
}

fn batch(txns: Vec<Submission>) -> Bytes {
    let txns = txns.into();
    SequencerCommand::Batch(SequencerBatch { time_millis: 1, seed: 1, done: Epoch(0), txns })
        .to_bytes()
}

/// A stage on which the sequencer has ordered transactions on both shards, one
/// in each of the epochs 12 and 13, with the slices that they were cut into.
fn ordered() -> (Stage, Vec<Slice>) {
    let mut stage = Stage::new();
    stage.commit(SEQUENCER, &[init(), batch(vec![submission(1)]), batch(vec![submission(2)])]);
    let slices = [12, 13].map(|epoch| stage.slice(LOW, Epoch(epoch)));
    assert_eq!(found(&stage), [] as [&str; 0]);
    (stage, slices.to_vec())
}

fn slices(slices: &[Slice]) -> Bytes {
    ShardCommand::Slices(slices.to_vec().into()).to_bytes()
}

#[test]
fn r1_two_leaders_of_one_term_are_found() {
    let stage = Stage::new();
    stage.taps[0].voting(GROUP, vote(2, 1, true));
    stage.taps[1].voting(GROUP, vote(2, 1, true));
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[1].voting(GROUP, vote(2, 2, true));
    assert_eq!(found(&stage), ["R1"]);
}

#[test]
fn r1_a_second_vote_in_a_term_is_found() {
    let stage = Stage::new();
    stage.taps[0].voting(GROUP, vote(2, 1, false));
    // Whoever was elected by others is followed all the same.
    stage.taps[0].voting(GROUP, vote(2, 2, true));
    stage.taps[0].voting(GROUP, vote(3, 3, false));
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[0].voting(GROUP, vote(3, 2, false));
    assert_eq!(found(&stage), ["R1"]);
}

#[test]
fn r2_another_entry_of_the_same_term_is_found() {
    let stage = Stage::new();
    stage.append(0, GROUP, &[entry(2, 11, command(b"one"))]);
    stage.append(1, GROUP, &[entry(2, 11, command(b"one"))]);
    stage.append(2, GROUP, &[entry(3, 11, command(b"two"))]);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.append(1, GROUP, &[entry(3, 12, command(b"three"))]);
    stage.append(2, GROUP, &[entry(3, 12, command(b"four"))]);
    assert_eq!(found(&stage), ["R2"]);
}

#[test]
fn r3_a_leader_without_what_is_committed_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a")]);
    stage.taps[1].voting(GROUP, vote(3, 2, true));
    assert_eq!(found(&stage), [] as [&str; 0]);
    // The third replica has not got it.
    stage.taps[2].voting(GROUP, vote(4, 3, true));
    assert_eq!(found(&stage), ["R3"]);
}

#[test]
fn r3_a_late_leader_of_an_old_term_is_in_order() {
    let mut stage = Stage::new();
    stage.taps[0].voting(GROUP, vote(5, 1, true));
    stage.commit(LOW, &[put(1, 1, "a")]);
    stage.taps[2].voting(GROUP, vote(4, 3, true));
    assert_eq!(found(&stage), [] as [&str; 0]);
}

/// Logs with one entry in common have all before it in common.
#[test]
fn r2_logs_that_do_not_match_are_found() {
    let before = |term| {
        let stage = Stage::new();
        stage.append(0, GROUP, &[entry(1, 11, blank()), entry(3, 12, blank())]);
        stage.append(1, GROUP, &[entry(term, 11, blank()), entry(3, 12, blank())]);
        found(&stage)
    };
    assert_eq!(before(1), [] as [&str; 0]);
    assert_eq!(before(2), ["R2"]);
}

#[test]
fn r2_a_gap_in_a_log_is_found() {
    let next = |index| {
        let stage = Stage::new();
        stage.append(0, GROUP, &[entry(1, 11, blank())]);
        stage.append(0, GROUP, &[entry(1, index, blank())]);
        found(&stage)
    };
    assert_eq!(next(12), [] as [&str; 0]);
    assert_eq!(next(13), ["R2"]);
    assert_eq!(next(11), ["R2"]);
}

#[test]
fn r3_the_removal_of_what_is_committed_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a")]);
    stage.append(2, GROUP, &[entry(1, 11, blank())]);
    stage.taps[2].truncating(GROUP, 11);
    stage.append(0, GROUP, &[entry(2, 12, blank())]);
    stage.taps[0].truncating(GROUP, 12);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[0].truncating(GROUP, 11);
    assert_eq!(found(&stage), ["R3"]);
}

/// A snapshot replaces a log that conflicts with it, from its own index on. The
/// removal counts as in order by an entry of another term than the committed
/// one at its index, and by nothing else.
#[test]
fn r3_what_is_committed_may_go_with_what_conflicts_behind_it() {
    let committed = [put(1, 1, "a"), put(1, 2, "b")];
    let behind = |last: LogEntry| {
        let mut stage = Stage::new();
        stage.commit(LOW, &committed);
        stage.append(2, GROUP, &[entry(2, 11, command(&committed[0])), last]);
        stage.taps[2].truncating(GROUP, 11);
        found(&stage)
    };
    assert_eq!(behind(entry(3, 12, blank())), [] as [&str; 0]);
    assert_eq!(behind(entry(2, 12, command(&committed[1]))), ["R3"]);
}

#[test]
fn r3_a_tail_beyond_what_is_committed_is_no_conflict() {
    let mut stage = Stage::new();
    let committed = [put(1, 1, "a")];
    stage.commit(LOW, &committed);
    // Nobody knows what will be committed at 12.
    let entries = [entry(2, 11, command(&committed[0])), entry(3, 12, blank())];
    stage.append(2, GROUP, &entries);
    stage.taps[2].truncating(GROUP, 12);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.append(2, GROUP, &entries[1..]);
    stage.taps[2].truncating(GROUP, 11);
    assert_eq!(found(&stage), ["R3"]);
}

/// A conflict before what is removed stays, and excuses nothing.
#[test]
fn r3_a_conflict_that_stays_is_no_excuse() {
    let mut stage = Stage::new();
    let committed = [put(1, 1, "a"), put(1, 2, "b")];
    stage.commit(LOW, &committed);
    stage.append(2, GROUP, &[entry(1, 11, blank()), entry(2, 12, command(&committed[1]))]);
    stage.taps[2].truncating(GROUP, 12);
    // Nor do such logs match.
    assert_eq!(found(&stage), ["R2", "R3"]);
}

#[test]
fn r4_an_entry_that_is_applied_without_a_majority_is_found() {
    let mut stage = Stage::new();
    let entries = [entry(2, 11, blank())];
    stage.append(0, GROUP, &entries);
    let ticket = stage.taps[1].appending(GROUP, &entries);
    let _pending = stage.taps[2].appending(GROUP, &entries);
    stage.taps[1].appended(GROUP, ticket);
    stage.apply(0, LOW, 11);
    assert_eq!(found(&stage), [] as [&str; 0]);
    let entries = [entry(2, 12, blank())];
    stage.append(0, GROUP, &entries);
    let _pending = stage.taps[1].appending(GROUP, &entries);
    stage.apply(0, LOW, 12);
    assert_eq!(found(&stage), ["R4"]);
}

/// While voters change, a majority of both sets is needed.
#[test]
fn r4_a_joint_membership_needs_both_majorities() {
    let joint = membership(&[&[1, 2, 3], &[1, 2, 4]]);
    let cases: [(&[usize], bool); 4] =
        [(&[1], true), (&[2, 3], true), (&[2], false), (&[3], false)];
    for (followers, is_quorum) in cases {
        let mut stage = Stage::new();
        stage.admit(3, GROUP, 4);
        let entries = [entry(2, 11, joint.clone())];
        stage.append(0, GROUP, &entries);
        followers.iter().for_each(|place| stage.append(*place, GROUP, &entries));
        stage.apply(0, LOW, 11);
        assert_eq!(found(&stage).is_empty(), is_quorum, "with {followers:?}");
    }
}

#[test]
fn r4_an_entry_that_is_not_in_the_log_is_found() {
    let mut stage = Stage::new();
    stage.apply_entries(0, LOW, 11, &[blank()]);
    assert_eq!(found(&stage), ["R4"]);
}

#[test]
fn r5_an_acknowledged_entry_that_is_lost_is_found() {
    let stage = Stage::new();
    let (kept, unsure) = ([entry(2, 11, blank())], [entry(2, 12, blank())]);
    stage.append(0, GROUP, &kept);
    let _pending = stage.taps[0].appending(GROUP, &unsure);
    stage.reopen_log(0, 2, GROUP, &kept);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.reopen_log(0, 3, GROUP, &[]);
    assert_eq!(found(&stage), ["R5"]);
}

#[test]
fn r5_an_entry_that_comes_back_is_found() {
    let stage = Stage::new();
    let entries = [entry(2, 11, blank()), entry(2, 12, blank())];
    stage.append(0, GROUP, &entries);
    stage.taps[0].truncating(GROUP, 12);
    // Not done yet: either may be found.
    stage.reopen_log(0, 2, GROUP, &entries);
    let tap = stage.ledger.tap(node(0), 2);
    tap.truncating(GROUP, 12);
    tap.truncated(GROUP);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.reopen_log(0, 3, GROUP, &entries);
    assert_eq!(found(&stage), ["R5"]);
}

#[test]
fn r5_a_log_and_a_tombstone_that_are_lost_are_found() {
    let stage = Stage::new();
    let tap = stage.ledger.tap(node(0), 2);
    tap.log_opened(Vec::new(), &|_, _| false);
    assert_eq!(found(&stage), ["R5"]);

    let stage = Stage::new();
    stage.taps[0].forgetting(GROUP, replica(0));
    let tap = stage.ledger.tap(node(0), 2);
    tap.log_opened(stage.other_logs(0, GROUP), &|_, _| false);
    assert_eq!(found(&stage), [] as [&str; 0]);
    tap.forgot(GROUP, replica(0));
    let tap = stage.ledger.tap(node(0), 3);
    tap.log_opened(stage.other_logs(0, GROUP), &|_, _| true);
    assert_eq!(found(&stage), [] as [&str; 0]);
    let tap = stage.ledger.tap(node(0), 4);
    tap.log_opened(stage.other_logs(0, GROUP), &|_, _| false);
    assert_eq!(found(&stage), ["R5"]);
}

#[test]
fn r6_a_vote_that_is_forgotten_is_found() {
    let stage = Stage::new();
    stage.taps[0].voting(GROUP, vote(2, 1, false));
    stage.taps[0].voted(GROUP, vote(2, 1, false));
    stage.taps[0].voting(GROUP, vote(2, 1, true));
    // The second may be found or not.
    for (life, found_vote) in [(2, vote(2, 1, true)), (3, vote(2, 1, true))] {
        stage.reopen_log_with(0, life, GROUP, Some(found_vote), &[]);
    }
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.reopen_log_with(0, 4, GROUP, Some(vote(1, 1, false)), &[]);
    assert_eq!(found(&stage), ["R6"]);
}

#[test]
fn r7_an_engine_that_has_failed_is_held_to_what_it_said_before() {
    let stage = Stage::new();
    stage.append(0, GROUP, &[entry(2, 11, blank()), entry(2, 12, blank())]);
    stage.taps[0].flushed(LOW, 11);
    let upto = |index| LogPosition { term: 2, index };
    stage.taps[0].purging(GROUP, upto(11), Err(EngineError::Closed));
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[0].purging(GROUP, upto(12), Err(EngineError::Closed));
    assert_eq!(found(&stage), ["R7"]);
}

#[test]
fn r7_a_purge_beyond_what_is_durable_is_found() {
    let stage = Stage::new();
    stage.append(0, GROUP, &[entry(2, 11, blank()), entry(2, 12, blank())]);
    stage.taps[0].purging(GROUP, LogPosition { term: 2, index: 11 }, Ok(Some(11)));
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[0].purging(GROUP, LogPosition { term: 2, index: 12 }, Ok(Some(11)));
    assert_eq!(found(&stage), ["R7"]);
}

#[test]
fn e1_a_batch_that_comes_again_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a")]);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.apply_entries(0, LOW, 11, &[blank()]);
    assert_eq!(found(&stage), ["E1"]);
}

#[test]
fn e1_a_state_that_was_durable_and_is_lost_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a")]);
    stage.reopen_engine(0, 2, SEED_INDEX);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.ledger.tap(node(0), 2).flushed(LOW, 11);
    stage.reopen_engine(0, 3, SEED_INDEX);
    assert_eq!(found(&stage), ["E1"]);
}

#[test]
fn o1_slices_in_the_order_of_the_sequencer_are_in_order() {
    let (mut stage, due) = ordered();
    stage.commit(LOW, &[slices(&due[..1]), slices(&due[1..])]);
    assert_eq!(found(&stage), [] as [&str; 0]);
}

#[test]
fn o1_a_slice_that_is_left_out_is_found() {
    let (mut stage, mut due) = ordered();
    due[1].prev = due[0].prev;
    stage.commit(LOW, &[slices(&due[1..])]);
    assert_eq!(found(&stage), ["O1"]);
}

#[test]
fn o1_a_slice_with_other_work_is_found() {
    let (mut stage, mut due) = ordered();
    due[0].body = SliceBody::Transactions(Vec::new().into());
    stage.commit(LOW, &[slices(&due[..1])]);
    assert_eq!(found(&stage), ["O1"]);
}

#[test]
fn o2_a_replica_that_differs_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a")]);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.append(0, GROUP, &[entry(2, 12, blank())]);
    stage.append(1, GROUP, &[entry(2, 12, blank())]);
    let mut batch = stage.batch(0, LOW, 12, &[blank()]);
    batch.data.push(Mutation::put("a", "another"));
    stage.taps[0].applied(LOW, &batch);
    assert_eq!(found(&stage), ["O2"]);
}

#[test]
fn o2_a_stored_row_that_differs_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a")]);
    stage.reopen_engine(0, 2, 11);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.spoil(0, LOW, "a");
    stage.reopen_engine(0, 3, 11);
    assert_eq!(found(&stage), ["O2"]);
}

#[test]
fn o4_watermarks_that_are_not_so_are_found() {
    let (mut stage, due) = ordered();
    let say = |stage: &Stage, logged, done| {
        let marks = Watermarks {
            logged: Epoch(logged),
            done: Epoch(done),
            floors: Floors { done: Epoch(done), expired: Epoch(0) },
        };
        stage.taps[0].sent(&PeerMessage::Watermarks { leader: node(0), marks }.to_bytes());
    };
    say(&stage, 11, 11);
    stage.commit(LOW, &[slices(&due[..1])]);
    let other = stage.slice(UP, Epoch(12));
    stage.commit(UP, &[slices(&[other])]);
    say(&stage, 12, 12);
    assert_eq!(found(&stage), [] as [&str; 0]);
    say(&stage, 13, 12);
    assert_eq!(stage.findings.all().len(), 1);
    say(&stage, 12, 13);
    assert_eq!(stage.findings.all().len(), 2);
    assert_eq!(found(&stage), ["O4"]);
}

#[test]
fn o5_an_answer_that_came_too_early_is_found() {
    let (mut stage, due) = ordered();
    // Its position is epoch 12, which the other shard has not got.
    stage.commit(LOW, &[slices(&due[..1]), put(1, 1, "a")]);
    let call = Transaction::new().put("a", "value").call();
    stage.ledger.answered(&Transaction::new().get("b").call());
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.ledger.answered(&call);
    assert_eq!(found(&stage), ["O5"]);

    let (mut stage, due) = ordered();
    stage.commit(LOW, &[slices(&due[..1]), put(1, 1, "a")]);
    let other = stage.slice(UP, Epoch(12));
    stage.commit(UP, &[slices(&[other])]);
    stage.ledger.answered(&call);
    assert_eq!(found(&stage), [] as [&str; 0]);

    // No log has it.
    stage.ledger.answered(&Transaction::new().put("b", "value").call());
    assert_eq!(found(&stage), ["O5"]);

    // It is ordered, and no shard has its slice.
    let (stage, _) = ordered();
    stage.ledger.answered(&submission(1).call);
    assert_eq!(found(&stage), ["O5"]);
}

#[test]
fn o6_a_command_on_keys_of_another_shard_is_found() {
    let mut stage = Stage::new();
    stage.commit(SEQUENCER, &[init()]);
    stage.commit(LOW, &[put(1, 1, "a")]);
    assert_eq!(found(&stage), [] as [&str; 0]);

    let mut stage = Stage::with_ranges(KeyRange::all(), stage::up());
    stage.commit(SEQUENCER, &[init()]);
    stage.commit(LOW, &[put(1, 1, "z")]);
    assert_eq!(found(&stage), ["O6"]);
}

#[test]
fn o7_a_request_that_is_executed_by_two_shards_is_found() {
    let mut stage = Stage::new();
    stage.commit(LOW, &[put(1, 1, "a"), put(1, 1, "a")]);
    stage.commit(UP, &[put(1, 2, "z")]);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.commit(UP, &[put(1, 1, "z")]);
    assert_eq!(found(&stage), ["O7"]);
}

/// A model of something else than the machines execute.
#[derive(Default)]
struct Forgetful(BTreeMap<Blob, Blob>);

impl Model for Forgetful {
    fn execute(&mut self, _call: &Call) -> Verdict {
        Verdict::Done(Blob::from("what was asked"))
    }

    fn content(&self) -> &BTreeMap<Blob, Blob> {
        &self.0
    }
}

#[test]
fn o8_outcomes_and_content_that_are_not_the_models_are_found() {
    let (mut stage, due) = ordered();
    stage.commit(LOW, &[put(1, 1, "a"), slices(&due[..1])]);
    assert!(stage.ledger.content().is_err(), "the other shard has not executed its part");
    for epoch in [12, 13] {
        let slice = stage.slice(UP, Epoch(epoch));
        stage.commit(UP, &[slices(&[slice])]);
    }
    stage.commit(LOW, &[slices(&due[1..]), put(1, 2, "a")]);
    assert_eq!(found(&stage), [] as [&str; 0]);
    assert_eq!(stage.ledger.content(), Ok(()));
    let order: Vec<u64> = stage.ledger.order().iter().map(|((_, sequence), _)| *sequence).collect();
    assert_eq!(order, [1, 1, 2, 2], "a command, two epochs, and the last command");
    let (rows, logs) = (stage.ledger.system_rows(), stage.ledger.log_lengths());
    assert_eq!((rows[&(LOW, b's')], rows.get(&(LOW, b'p'))), (1, None));
    assert_eq!((logs[&(node(0), GROUP)], logs[&(node(2), GROUP)]), (4, 0));
    assert_eq!(stage.ledger.longest_open(), None);
    assert!(stage.ledger.counts()["O8"] == 4, "{:?}", stage.ledger.counts());

    let model = Box::<Forgetful>::default();
    let mut stage = Stage::judged(stage::low(), stage::up(), model);
    stage.commit(LOW, &[put(1, 1, "a")]);
    assert_eq!(found(&stage), ["O8"]);
    assert!(stage.ledger.content().unwrap_err().contains("by the order"));
}

#[test]
fn m1_a_replica_in_two_places_or_after_its_end_is_found() {
    let stage = Stage::new();
    stage.taps[1].admitted(GROUP, replica(0), LogState::default());
    assert_eq!(found(&stage), ["M1"]);

    let stage = Stage::new();
    stage.taps[0].forgetting(GROUP, replica(0));
    stage.taps[0].forgot(GROUP, replica(0));
    stage.admit(0, GROUP, 40);
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[0].admitted(GROUP, replica(0), LogState::default());
    assert_eq!(found(&stage), ["M1"]);
}

fn bootstrap() -> Bytes {
    let spec = |place: usize| NodeSpec {
        node: node(place),
        disk: quorate::types::DiskId(place as u128 + 1),
        address: format!("node-{place}"),
        labels: Vec::new().into(),
        supports: quorate_meta::CLUSTER_VERSION,
    };
    let nodes = [0, 1, 2].map(node).to_vec();
    let plan = Bootstrap {
        cluster: quorate::types::ClusterId(1),
        nodes: [0, 1, 2].map(spec).to_vec().into(),
        metadata_voters: nodes.clone().into(),
        sequencer_voters: nodes.into(),
        replicas_per_shard: 3,
        split_keys: Vec::new().into(),
    };
    Command::Bootstrap(plan).encode().unwrap()
}

#[test]
fn m2_members_that_the_metadata_does_not_name_are_told() {
    let mut stage = Stage::new();
    assert!(stage.ledger.homes().is_err(), "there is no metadata yet");
    stage.commit(METADATA, &[bootstrap()]);
    assert_eq!(found(&stage), [] as [&str; 0]);
    // The registry gives other ids to the replicas of its groups than the
    // stage has.
    let told = stage.ledger.homes().unwrap_err();
    assert!(told.contains("is to be"), "{told}");
}

#[test]
fn m3_a_migration_that_nobody_recorded_is_found() {
    let mut stage = Stage::new();
    let place = |at: u64| Place { node: NodeId(at), replica: ReplicaId(at) };
    let hlc = Hlc { millis: 1, counter: 0, node: node(0) };
    let row =
        |id: u128| MigrationRow::planned(MigrationId(id), (LOW, GROUP), place(1), place(4), 2, hlc);
    let write = JournalWrite {
        id: MigrationId(7),
        expected: None,
        row: Blob(row(7).seal()),
        finished: false,
    };
    let write = Command::Journal(write).encode().unwrap();
    stage.commit(METADATA, &[bootstrap(), write]);
    stage.taps[0].migrations(&BTreeMap::from([(MigrationId(7), row(7))]));
    assert_eq!(found(&stage), [] as [&str; 0]);
    stage.taps[0].migrations(&BTreeMap::from([(MigrationId(8), row(8))]));
    assert_eq!(found(&stage), ["M3"]);
}

/// Whatever an earlier life still says is of no concern.
#[test]
fn a_life_that_is_over_is_not_heard() {
    let stage = Stage::new();
    stage.reopen_log(0, 2, GROUP, &[]);
    stage.taps[0].purging(GROUP, LogPosition { term: 2, index: 99 }, Ok(None));
    assert_eq!(found(&stage), [] as [&str; 0]);
}
