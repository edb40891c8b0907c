//! Reads of several shards.

use std::sync::Arc;

use quorate_calvin::{ExecuteError, Request};
use quorate_types::Epoch;

use super::gate::{A, B, read, start, write};
use super::wires::Held;
use super::world::{ends, run};
use crate::support::blob;
use crate::support::checker::{Observed, is_strictly_serializable};

#[test]
fn a_read_of_two_shards_is_sequenced_and_never_answers_half() {
    run(1, async {
        let world = start().await;
        world.spawn(vec![write(&["a", "b"], "1")]).await.unwrap();
        let before = world.cursor(A);
        world.wires.hold(Held::Slices(B));
        let writer = world.spawn(vec![write(&["a", "b"], "2")]);
        world.logs_after(A, before).await;
        // Half of what the reader is to see is there, and half is not.
        let session = Arc::new(world.session());
        let id = session.id();
        let mut reader = world.spawn_in(session, vec![read(&["a", "b"])]);
        assert!(!ends(&mut reader).await, "B has not been told of the read");
        let ordered: Vec<_> = world.ordered(id).into_iter().map(|txn| txn.call).collect();
        assert_eq!(ordered, [read(&["a", "b"]).call()], "it is in the sequencer's log");
        world.wires.release_everything();
        assert_eq!(reader.await.unwrap(), Observed::Result(blob("2,2")));
        assert_eq!(writer.await.unwrap(), Observed::Result(blob("ok")));
        // Neither shard was asked on its own.
        let asks_directly = |request: &Request| matches!(request, Request::Execute(execute) if execute.request.client == id);
        assert!(!world.wires.asked().iter().any(|(_, request)| asks_directly(request)));
        assert!(is_strictly_serializable(&world.history()));
    });
}

#[test]
fn a_write_that_overtakes_half_a_read_is_part_of_what_it_reads() {
    run(1, async {
        let world = start().await;
        world.wires.hold(Held::Slices(B));
        let mut reader = world.spawn(vec![read(&["a", "b"])]);
        world.logs_after(A, Epoch(0)).await;
        // Behind the read at A, ahead of it at B: the write of a waits for L,
        // and the write of b, which L covers, comes before the read.
        let mut behind = world.spawn(vec![write(&["a"], "late")]);
        let ahead = world.spawn(vec![write(&["b"], "early")]);
        assert_eq!(ahead.await.unwrap(), Observed::Result(blob("ok")));
        assert!(!ends(&mut behind).await);
        assert!(!ends(&mut reader).await);
        world.wires.release_everything();
        assert_eq!(reader.await.unwrap(), Observed::Result(blob("-,early")));
        behind.await.unwrap();
        assert!(is_strictly_serializable(&world.history()));
    });
}

#[test]
fn a_read_of_two_shards_waits_for_what_the_other_shard_read() {
    run(1, async {
        let world = start().await;
        world.spawn(vec![write(&["a", "b"], "1")]).await.unwrap();
        // The home, A, has logged the read and read its own half.
        world.wires.hold(Held::Contributions(A));
        let mut reader = world.spawn(vec![read(&["a", "b"])]);
        assert!(!ends(&mut reader).await);
        world.wires.release_everything();
        assert_eq!(reader.await.unwrap(), Observed::Result(blob("1,1")));
    });
}

/// What each shard reads is below its limit, and so is nothing in the way of the
/// answer but its own size: no frame would carry it to the client's node.
#[test]
fn a_read_of_two_shards_whose_result_is_too_large_aborts() {
    run(1, async {
        let world = start().await;
        let value = "v".repeat(700 << 10);
        for key in ["a", "b"] {
            world.spawn(vec![write(&[key], &value)]).await.unwrap();
        }
        let session = world.session();
        let eight_megabytes = read(&["a", "a", "a", "a", "a", "a", "b", "b", "b", "b", "b", "b"]);
        let outcome = session.execute(eight_megabytes.call()).await;
        let Err(ExecuteError::Aborted(reason)) = outcome else { panic!("it was answered") };
        assert_eq!(reason, "the result is too large");
        let three = session.execute(read(&["a", "a", "b"]).call()).await;
        assert_eq!(three.unwrap().len(), 3 * value.len() + 2, "less is answered");
    });
}
