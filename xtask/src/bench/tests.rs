use clap::Parser;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    options: Options,
}

fn parse(flags: &[OsString]) -> Options {
    let program = OsString::from("bench");
    Cli::try_parse_from(std::iter::once(&program).chain(flags)).unwrap().options
}

#[test]
fn flags_arrive_at_the_bench_as_they_were_given() {
    for given in [
        "",
        "--seconds 2 --clients 1,8 --work set,get --nodes 5 --shards 4",
        "--dir a --json b --no-peers --etcd-clients c",
    ] {
        let given: Vec<OsString> = given.split_whitespace().map(OsString::from).collect();
        let options = parse(&given);
        let arrived = parse(&to_arguments(&options));
        assert_eq!(format!("{options:?}"), format!("{arrived:?}"));
    }
}

#[derive(Parser)]
struct GroupsCli {
    #[command(flatten)]
    options: groups::Options,
}

#[test]
fn flags_of_groups_arrive_at_the_bench_as_they_were_given() {
    let parse = |flags: &[OsString]| {
        let program = OsString::from("bench");
        GroupsCli::try_parse_from(std::iter::once(&program).chain(flags)).unwrap().options
    };
    for given in [
        "",
        "--groups 9 --seconds 2 --led 3 --clients 4 --rounds 5 --dir a --json b",
        "--state-mib 6 --snapshot-mib-per-second 0 --parts catch-up,idle",
    ] {
        let given: Vec<OsString> = given.split_whitespace().map(OsString::from).collect();
        let options = parse(&given);
        let arrived = parse(&groups_arguments(&options));
        assert_eq!(format!("{options:?}"), format!("{arrived:?}"));
    }
}
