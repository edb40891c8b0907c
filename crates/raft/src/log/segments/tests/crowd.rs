//! The rows of all groups, which every segment begins with.

use super::*;

/// Groups that the smallest segments have room for.
const GROUPS_MAX: u64 = SEGMENT_BYTES_MIN / 2 / 256;

/// Ids that take the most bytes.
const fn group(number: u64) -> GroupId {
    GroupId(u64::MAX - number)
}

const fn replica(number: u64) -> ReplicaId {
    ReplicaId(u64::MAX - number)
}

async fn admit(log: &DurableLog, number: u64) -> Result<(), LogError> {
    log.admit(group(number), replica(number)).await.map(drop)
}

/// What a log holds with segments of a size.
async fn held(disk: &CrashDisk, segment_bytes: u64) -> Result<Model, LogError> {
    let log = open_with(disk, segment_bytes)?;
    let model = Model::of(&log).await?;
    log.close().await?;
    Ok(model)
}

/// A log with all the groups that the smallest segments have room for.
async fn crowded() -> (CrashDisk, DurableLog) {
    let disk = CrashDisk::new(1);
    let log = open(&disk).unwrap();
    for number in 0..GROUPS_MAX {
        log.room_for(group(number)).unwrap();
        admit(&log, number).await.unwrap();
    }
    (disk, log)
}

#[test]
fn a_group_too_many_is_refused_and_the_others_go_on() {
    run(async || {
        let (disk, log) = crowded().await;
        for _ in 0..3 {
            let refused = admit(&log, GROUPS_MAX).await.unwrap_err();
            let is_same = |error: &LogError| error.to_string() == refused.to_string();
            assert!(matches!(refused, LogError::Crowded { bytes_max: 32_768, .. }), "{refused}");
            assert!(refused.to_string().contains("configure larger segments"), "{refused}");
            assert!(log.room_for(group(GROUPS_MAX)).is_err_and(|error| is_same(&error)));
        }
        // Rows as long as they are counted, a few segments full of entries, and
        // whoever was there is there.
        for number in 0..GROUPS_MAX {
            log.room_for(group(number)).unwrap();
            admit(&log, number).await.unwrap();
            let vote = Vote { term: u64::MAX, candidate: replica(number), committed: true };
            log.save_vote(group(number), vote).await.unwrap();
            let first = u64::MAX - 1_000;
            let entries = |from| (from..from + 2).map(|index| entry(u64::MAX - 1, index, 400));
            append(&log, group(number), entries(first).collect()).await.unwrap();
            log.purge(group(number), LogPosition { term: u64::MAX - 1, index: first })
                .await
                .unwrap();
            for index in first + 2..first + 8 {
                append(&log, group(number), entries(index).collect()).await.unwrap();
                log.truncate(group(number), index + 1).await.unwrap();
            }
        }
        let model = Model::of(&log).await.unwrap();
        assert_eq!(model.0.len() as u64, GROUPS_MAX);
        log.close().await.unwrap();
        assert!(*segments(&disk).keys().next_back().unwrap() > 10);
        assert!(segments(&disk).values().all(|(_, it)| it.capacity == SEGMENT_BYTES_MIN));
        let log = open(&disk).unwrap();
        assert!(Model::of(&log).await.unwrap() == model);
        assert!(matches!(admit(&log, GROUPS_MAX).await, Err(LogError::Crowded { .. })));
        log.close().await.unwrap();
        let log = open_with(&disk, 4 * SEGMENT_BYTES_MIN).unwrap();
        admit(&log, GROUPS_MAX).await.unwrap();
    });
}

#[test]
fn tombstones_take_room_from_groups() {
    run(async || {
        let (disk, log) = crowded().await;
        log.forget(group(0), replica(0)).await.unwrap();
        let again = log.admit(group(0), replica(GROUPS_MAX)).await;
        assert!(matches!(again, Err(LogError::Crowded { .. })), "one owner less, one tombstone");
        // Of a replica that was never here, too.
        for number in 1..9 {
            log.forget(group(0), replica(GROUPS_MAX + number)).await.unwrap();
        }
        log.forget(group(1), replica(1)).await.unwrap();
        assert!(admit(&log, GROUPS_MAX).await.is_err());
        log.close().await.unwrap();
        let log = open(&disk).unwrap();
        assert!(admit(&log, GROUPS_MAX).await.is_err(), "they are counted when it is opened");
        log.forget(group(2), replica(2)).await.unwrap();
        log.forget(group(2), replica(2)).await.unwrap();
        admit(&log, GROUPS_MAX).await.unwrap();
        assert!(admit(&log, GROUPS_MAX + 1).await.is_err());
    });
}

#[test]
fn segments_too_small_for_what_is_stored_are_refused_and_nothing_is_changed() {
    const LARGE: u64 = 1 << 20;
    run(async || {
        let disk = CrashDisk::new(1);
        let log = open_with(&disk, LARGE).unwrap();
        for number in 0..16 * GROUPS_MAX {
            admit(&log, number).await.unwrap();
        }
        log.close().await.unwrap();
        let model = held(&disk, LARGE).await.unwrap();
        let (image, done) = (disk.image(), disk.counters().operations);
        let refused = held(&disk, SEGMENT_BYTES_MIN).await.map(drop).unwrap_err();
        assert!(matches!(refused, LogError::Crowded { bytes: 32_769.., .. }), "{refused}");
        assert!(refused.to_string().contains("configure larger segments"), "{refused}");
        assert!(disk.image() == image && disk.counters().operations == done);
        assert!(held(&disk, LARGE).await.unwrap() == model);
    });
}

/// Truncations that nothing was purged behind have no limit. Nor has the list of
/// segments, for which the same is done.
#[test]
fn rows_that_grow_beyond_what_was_counted_on_fail_nothing() {
    run(async || {
        let disk = CrashDisk::new(1);
        let log = open(&disk).unwrap();
        for number in 0..40 {
            admit(&log, number).await.unwrap();
            for index in 0..130 {
                let entries = (index..index + 2).map(|index| entry(1, index, 1));
                append(&log, group(number), entries.collect()).await.unwrap();
                log.truncate(group(number), index + 1).await.unwrap();
            }
        }
        let model = Model::of(&log).await.unwrap();
        log.close().await.unwrap();
        assert!(segments(&disk).values().any(|(_, it)| it.capacity > SEGMENT_BYTES_MIN));
        let refused = held(&disk, SEGMENT_BYTES_MIN).await.map(drop).unwrap_err();
        assert!(matches!(refused, LogError::Crowded { .. }), "{refused}");
        assert!(held(&disk, 4 * SEGMENT_BYTES_MIN).await.unwrap() == model);
    });
}
