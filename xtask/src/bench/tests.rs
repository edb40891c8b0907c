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
