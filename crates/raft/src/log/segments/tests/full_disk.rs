//! Disks without room. A log takes it a file at a time; where each write may
//! need some, any may fail.

use std::io::ErrorKind;

use super::*;

/// What a disk without room leaves of a log.
struct Struck {
    disk: CrashDisk,
    ledger: Ledger,
    error: Option<LogError>,
}

/// Lives until the disk has no room, and shows that this is for good.
fn live_without_room(faults: Faults) -> Struck {
    let disk = CrashDisk::new(1);
    disk.set_faults(faults);
    let on = disk.clone();
    let (ledger, error) = run(async move || {
        let mut ledger = Ledger::default();
        let error = match open_with(&on, Story::Growing.segment_bytes()) {
            Ok(log) => {
                ledger.states.push(Model::of(&log).await.unwrap());
                let lived = live_with(&log, Story::Growing, 1, STEPS, &mut ledger).await;
                if let Err(error) = &lived {
                    on.clear_faults();
                    stays_failed(&log, error).await;
                }
                lived.err()
            }
            Err(error) => Some(error),
        };
        (ledger, error)
    });
    disk.clear_faults();
    Struck { disk, ledger, error }
}

/// Room that comes too late helps nobody who heard of the failure.
async fn stays_failed(log: &DurableLog, error: &LogError) {
    let (group, replica) = (GroupId(77), ReplicaId(77));
    let again = [
        log.admit(group, replica).await.map(drop).unwrap_err(),
        log.forget(group, replica).await.unwrap_err(),
        log.close().await.unwrap_err(),
    ];
    for later in again {
        assert_eq!(later.to_string(), error.to_string());
    }
}

/// Says which file has no room, and that it is that.
fn says_so(error: &LogError) {
    let LogError::Disk { file, source } = error else { panic!("{error}") };
    assert_eq!(source.kind(), ErrorKind::StorageFull, "{error}");
    assert!(file.starts_with("log.0"), "{error}");
}

/// After the end of the process, and once more after a power cut.
fn lives_on(Struck { disk, ledger, .. }: &Struck, seed: u64) {
    let cut = CrashDisk::from_image(&disk.image(), seed);
    for disk in [disk.reboot(), cut] {
        let mut ledger = ledger.clone();
        live_on(&disk, Story::Growing, 2, 20, &mut ledger).unwrap();
        live_on(&disk, Story::Any, 3, 0, &mut ledger).unwrap();
    }
}

#[test]
fn a_disk_that_is_full_at_any_size_loses_nothing() {
    let mut refused = 0;
    for step in 0.. {
        let capacity_bytes = Some(step * (SEGMENT_BYTES_MIN / 2) + step);
        let struck = live_without_room(Faults { capacity_bytes, ..Faults::default() });
        lives_on(&struck, step);
        let Some(error) = &struck.error else { break };
        says_so(error);
        refused += 1;
    }
    assert!(refused > 20, "{refused}");
}

#[test]
fn a_write_without_room_loses_nothing_wherever_it_comes() {
    let mut refused = 0;
    for write in 1.. {
        let struck = live_without_room(Faults { full_from: Some(write), ..Faults::default() });
        lives_on(&struck, write);
        let Some(error) = &struck.error else { break };
        says_so(error);
        refused += 1;
    }
    assert!(refused > STEPS / 2, "{refused}");
}

/// The file that is to be ready for the next segment is tried again when it is
/// needed, and nobody hears of it.
#[test]
fn room_that_comes_in_time_is_enough() {
    let disk = CrashDisk::new(1);
    run(async || {
        let log = open_with(&disk, Story::Growing.segment_bytes()).unwrap();
        let full = Faults { capacity_bytes: Some(SEGMENT_BYTES_MIN), ..Faults::default() };
        disk.set_faults(full);
        log.admit(GROUP, REPLICA).await.unwrap();
        append(&log, GROUP, vec![entry(1, 0, 9_000)]).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        assert!(disk.counters().ills > 0, "nobody tried");
        disk.clear_faults();
        for index in 1..20 {
            append(&log, GROUP, vec![entry(1, index, 9_000)]).await.unwrap();
        }
        log.close().await.unwrap();
    });
}
