//! What the book says of steps that no machine would take, and of those that one does.

use quorate::types::ShardEpoch;
use quorate_calvin::{Direct, Fence};
use tokio::time::Instant;

use super::*;
use crate::sim::finding::Findings;

const PARENT: ShardId = ShardId(1);
const CHILD: ShardId = ShardId(2);

fn request() -> RequestId {
    RequestId { client: ClientId(1), sequence: 1, birth: Epoch(1), ack_below: 0 }
}

fn direct() -> ShardCommand {
    let footprint = Footprint { writes: vec![Blob::from("x")].into(), ..Footprint::default() };
    let call = Call { procedure: 1, args: Blob::from("one"), footprint };
    ShardCommand::Direct(Direct {
        request: request(),
        epoch: ShardEpoch(1),
        time_millis: 1,
        seed: 1,
        call,
    })
}

fn fence() -> ShardCommand {
    ShardCommand::Fence(Fence { request: request(), home: Blob::from("x") })
}

fn done(result: &str) -> Verdict {
    Verdict::Done(Blob::from(result))
}

fn decided(verdict: Verdict, position: u64) -> Event {
    Event::Decided { request: request(), verdict, position: Epoch(position) }
}

fn fenced(verdict: Verdict, position: u64) -> Event {
    let outcome = FenceOutcome::Decided(verdict);
    Event::Fenced { request: request(), outcome, position: Epoch(position) }
}

/// A book and what it found.
struct Judge {
    book: OrderBook,
    findings: Findings,
    report: Report,
}

impl Judge {
    fn new() -> Self {
        let findings = Findings::default();
        let report = Report::new(Instant::now(), findings.clone());
        Self { book: OrderBook::new(None), findings, report }
    }

    /// A parent whose log had the request at epoch 65 and that decided it at 68.
    fn of_a_wait() -> Self {
        let mut judge = Self::new();
        judge.step(PARENT, 65, &direct(), &[]);
        judge.step(PARENT, 68, &fence(), &[decided(done("one"), 68)]);
        judge
    }

    fn step(&mut self, shard: ShardId, cursor: u64, command: &ShardCommand, events: &[Event]) {
        let step =
            ShardStep { shard, index: 9, command, events, cursor: Epoch(cursor), known: None };
        self.book.shard(&step, &mut self.report);
    }

    /// A client has the answer, while a shard has not accepted this epoch.
    fn answer(&mut self, unlogged: u64) {
        let due = Due::Transactions(Vec::new());
        let chain = self.book.chains.entry(ShardId(3)).or_default();
        chain.due.insert(Epoch(unlogged), due);
        self.book.answered(b"one", &mut self.report);
    }

    #[track_caller]
    fn assert_finds(&self, rules: &[&str]) {
        let found: Vec<String> = self.findings.all().into_iter().map(|it| it.rule).collect();
        assert_eq!(found, rules);
    }
}

#[test]
fn an_answer_waits_for_all_that_its_shard_had_accepted() {
    let mut judge = Judge::of_a_wait();
    judge.answer(69);
    judge.assert_finds(&[]);
    judge.answer(67);
    judge.assert_finds(&["O5"]);
}

#[test]
fn a_child_may_answer_a_fence_from_where_it_began() {
    let mut judge = Judge::of_a_wait();
    judge.step(CHILD, 66, &fence(), &[fenced(done("one"), 66)]);
    judge.answer(67);
    judge.assert_finds(&[]);
    judge.answer(66);
    judge.assert_finds(&["O5"]);
}

#[test]
fn a_child_that_begins_before_the_request_it_answers_is_found() {
    let mut judge = Judge::of_a_wait();
    judge.step(CHILD, 64, &fence(), &[fenced(done("one"), 64)]);
    judge.assert_finds(&["O5"]);
}

#[test]
fn a_parent_that_answers_a_fence_does_so_from_where_it_is() {
    let mut judge = Judge::of_a_wait();
    judge.step(PARENT, 70, &fence(), &[fenced(done("one"), 70)]);
    judge.answer(67);
    judge.assert_finds(&["O5"]);
}

#[test]
fn a_fence_that_tells_another_outcome_is_found() {
    let mut judge = Judge::of_a_wait();
    judge.step(PARENT, 70, &fence(), &[fenced(done("another"), 70)]);
    judge.assert_finds(&["O7"]);
}

#[test]
fn a_second_execution_is_found() {
    let mut judge = Judge::of_a_wait();
    judge.step(PARENT, 70, &fence(), &[decided(done("one"), 70)]);
    judge.assert_finds(&["O7"]);
}

#[test]
fn a_cursor_is_that_of_the_shard_that_decides() {
    let mut judge = Judge::new();
    judge.step(PARENT, 65, &direct(), &[]);
    judge.step(CHILD, 68, &fence(), &[decided(done("one"), 68)]);
    judge.assert_finds(&[]);
    judge.step(PARENT, 66, &fence(), &[fenced(done("one"), 66)]);
    judge.assert_finds(&["O5"]);
}

#[test]
fn a_request_that_is_ordered_depends_on_its_epoch() {
    let mut judge = Judge::new();
    judge.step(PARENT, 65, &direct(), &[]);
    judge.book.ordered.insert(request().key(), TxnId { epoch: Epoch(67), position: 0 });
    judge.step(PARENT, 68, &fence(), &[decided(done("one"), 67)]);
    judge.assert_finds(&[]);
    judge.step(CHILD, 66, &fence(), &[fenced(done("one"), 66)]);
    judge.assert_finds(&["O5"]);
}
