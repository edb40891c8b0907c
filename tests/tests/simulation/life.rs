//! The crash sweep in small: that it passes, and that it finds what it is there
//! to find. All of it: `cargo xtask sim sweep`.

use quorate_tests::sim::Log;
use quorate_tests::sim::life::{Chapter, Ills, Life, Point, PointReport};

/// Runs points of a chapter, as far apart, until something is found.
fn first_found(life: &Life, chapter: Chapter, ills: &Ills, apart: usize) -> Option<PointReport> {
    let points = (1..=life.operations(chapter)).step_by(apart);
    let mut reports = points.map(|at| {
        let point = Point { chapter, at: Some(at), ills: ills.clone() };
        life.run(&point).0
    });
    reports.find(|report| !report.findings.is_empty())
}

#[test]
fn a_node_that_dies_in_any_chapter_of_its_life_loses_nothing() {
    loses_nothing(Log::Segments, 23);
}

#[test]
fn nor_does_one_with_its_log_in_a_redb_file() {
    loses_nothing(Log::Redb, 97);
}

fn loses_nothing(log: Log, apart: usize) {
    let life = Life::until(Chapter::G, log).unwrap();
    for chapter in Chapter::ALL {
        assert_eq!(first_found(&life, chapter, &Ills::default(), apart), None);
    }
}

#[test]
fn a_point_is_one_trace() {
    let point = Point { chapter: Chapter::B, at: Some(100), ills: Ills::default() };
    let [first, second] =
        [(), ()].map(|()| Life::until(Chapter::B, Log::Segments).unwrap().run(&point).0);
    assert!(first.deaths > 0);
    assert_eq!(first, second);
}

#[test]
fn a_disk_that_lies_about_syncs_is_found() {
    for log in Log::ALL {
        let life = Life::until(Chapter::B, log).unwrap();
        let ills = Ills { is_lying: true, ..Ills::default() };
        // Not each 11th: at one of those redb panics over what the disk has kept, and
        // once more while it cleans up, which ends the process.
        let found = first_found(&life, Chapter::B, &ills, 13);
        println!("{:?}", found.expect("nobody notices that the disk lies"));
    }
}

#[cfg(feature = "canary")]
mod canaries {
    use super::*;

    #[track_caller]
    fn is_found(name: &str, chapter: Chapter) {
        let life = Life::until(chapter, Log::Segments).unwrap();
        let ills = Ills { canary: Some(name.to_owned()), ..Ills::default() };
        let found = first_found(&life, chapter, &ills, 3);
        println!("{:?}", found.unwrap_or_else(|| panic!("nobody notices {name}")));
    }

    #[test]
    fn an_acknowledgement_before_the_sync_is_found() {
        is_found("acknowledged-before-sync", Chapter::B);
    }

    #[test]
    fn a_purge_past_what_is_durable_is_found() {
        is_found("purge-past-durable", Chapter::C);
    }
}
