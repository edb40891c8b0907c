#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::sync::Arc;

use bytes::Bytes;
use quorate_testkit::disk::{CrashDisk, SweepOptions, sweep};
use quorate_types::disk::Disk;
use quorate_types::{NodeId, ReplicaId};

use super::{SmallMachine, SmallState};
use crate::conformance::{Subject, state_machine_suite};
use crate::consensus::types::StoredMembership;
use crate::consensus::wire::host_row;
use crate::log::LogPosition;
use crate::machine::{Batch, Entry, StateMachine};
use crate::{SEED_INDEX, host_row_index};

/// Every command, one after the other.
#[derive(Debug, Default)]
struct Journal(Vec<u8>);

impl SmallState for Journal {
    fn apply(&mut self, command: &[u8]) -> Bytes {
        self.0.extend_from_slice(command);
        self.0.len().to_string().into()
    }

    fn save(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }

    fn load(saved: &[u8]) -> Result<Self, String> {
        if saved.contains(&b'!') {
            return Err("an exclamation mark is none of ours".to_owned());
        }
        Ok(Self(saved.to_vec()))
    }
}

/// Some sectors are written for a few of them, which a crash may tear.
const LINE: &str = concat!(
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
);

type Machine = SmallMachine<Journal>;

fn batch(index: u64, command: &'static str) -> Batch {
    let entry = Entry { index, term: 1, command: Some(Bytes::from_static(command.as_bytes())) };
    let at = LogPosition { term: 1, index };
    Batch { entries: vec![entry], host_row: host_row(at, &StoredMembership::default()) }
}

fn block<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).unwrap()
}

fn index(machine: &mut Machine) -> Option<u64> {
    machine.recovered().unwrap().and_then(|row| host_row_index(&row))
}

fn journal(machine: &Machine) -> String {
    machine.view().read(|journal| String::from_utf8(journal.0.clone()).unwrap())
}

#[tokio::test]
async fn it_conforms() {
    let fresh = || {
        let disk = parking_lot::Mutex::new(CrashDisk::new(7));
        let latest: Arc<parking_lot::Mutex<Option<super::View<Journal>>>> = Arc::default();
        let now = Arc::clone(&latest);
        let open = move || -> Box<dyn StateMachine> {
            let mut disk = disk.lock();
            disk.crash(3);
            *disk = disk.reboot();
            let machine = Machine::open(&*disk, "journal").unwrap();
            *now.lock() = Some(machine.view());
            Box::new(machine)
        };
        let state = move || {
            let view = latest.lock().clone();
            view.map(|view| view.read(Journal::save)).unwrap_or_default()
        };
        Subject { open: Box::new(open), state: Box::new(state) }
    };
    let long: Bytes = vec![b'l'; 3_000].into();
    state_machine_suite(fresh, &["one".into(), "two".into(), long]).await;
}

#[test]
fn a_crash_at_any_write_leaves_one_flush_or_the_next() {
    /// What was flushed, and how far flushing had come when the disk died.
    #[derive(Default)]
    struct Done {
        flushed: u64,
        begun: u64,
    }
    let life = |disk: &CrashDisk, done: &mut Done| -> Result<(), String> {
        let mut machine = Machine::open(disk, "journal").map_err(|error| error.to_string())?;
        for index in 1..=12 {
            block(machine.apply(batch(index, LINE))).map_err(|error| error.to_string())?;
            done.begun = index;
            done.flushed = block(machine.flush()).map_err(|error| error.to_string())?;
        }
        Ok(())
    };
    let check = |disk: &CrashDisk, done: &Done| -> Result<(), String> {
        let mut machine = Machine::open(disk, "journal").map_err(|error| error.to_string())?;
        let found = index(&mut machine).unwrap_or(0);
        if found < done.flushed || found > done.begun {
            return Err(format!("{found} after {} of {}", done.flushed, done.begun));
        }
        let bytes = journal(&machine).len() as u64;
        if bytes == found * LINE.len() as u64 {
            Ok(())
        } else {
            Err(format!("{bytes} bytes at {found}"))
        }
    };
    let options = SweepOptions { rounds: 8, ..SweepOptions::default() };
    let report = sweep(options, life, check).unwrap();
    assert!(report.crashes > 200 && report.writes_torn > 0, "{report}");
}

#[test]
fn damage_falls_back_to_the_copy_before_and_is_refused_in_both() {
    let disk = CrashDisk::new(1);
    let mut machine = Machine::open(&disk, "journal").unwrap();
    for index in 1..=4 {
        block(machine.apply(batch(index, "x"))).unwrap();
        block(machine.flush()).unwrap();
    }
    drop(machine);
    let flip = |name: &str| assert!(disk.damage(name, |bytes| *bytes.last_mut().unwrap() ^= 1));
    flip("journal-0");
    let mut machine = Machine::open(&disk, "journal").unwrap();
    assert_eq!((index(&mut machine), journal(&machine).as_str()), (Some(3), "xxx"));
    drop(machine);
    flip("journal-1");
    let refused = Machine::open(&disk, "journal").unwrap_err().to_string();
    assert!(refused.contains("journal-0 and journal-1, are damaged"), "{refused}");
}

#[test]
fn what_another_program_stored_is_refused_in_words() {
    let disk = CrashDisk::new(1);
    let mut machine = Machine::open(&disk, "journal").unwrap();
    block(machine.apply(batch(1, "hey!"))).unwrap();
    block(machine.flush()).unwrap();
    drop(machine);
    let refused = Machine::open(&disk, "journal").unwrap_err().to_string();
    assert_eq!(refused, "the state of journal: an exclamation mark is none of ours");
    let newer = |bytes: &mut Vec<u8>| {
        bytes[0] = 9;
        let sum = crc32c::crc32c_append(9, &bytes[5..]);
        bytes[1..5].copy_from_slice(&sum.to_be_bytes());
    };
    assert!(disk.damage("journal-1", newer));
    let refused = Machine::open(&disk, "journal").unwrap_err();
    let source = refused.source.unwrap().to_string();
    assert!(source.contains("format 9 is none that this program knows"), "{source}");
    Machine::erase(&disk, "journal").unwrap();
    assert_eq!(disk.list().unwrap().len(), 0);
    assert_eq!(index(&mut Machine::open(&disk, "journal").unwrap()), None);
}

#[test]
fn a_first_replica_is_seeded_once() {
    let disk = CrashDisk::new(1);
    let members = [(ReplicaId(11), NodeId(1))];
    let mut machine = Machine::open(&disk, "journal").unwrap();
    assert_eq!(index(&mut machine), None);
    let mut machine = machine.seeded(&members);
    assert_eq!(index(&mut machine), Some(SEED_INDEX));
    block(machine.apply(batch(SEED_INDEX + 1, "x"))).unwrap();
    block(machine.flush()).unwrap();
    drop(machine);
    let mut machine = Machine::open(&disk, "journal").unwrap().seeded(&members);
    assert_eq!(index(&mut machine), Some(SEED_INDEX + 1));
    assert!(disk.list().unwrap().len() == 2);
}
