use clap::Parser;

use super::super::args::{Cli, Command};
use super::*;

fn start(line: &str) -> StartArgs {
    match Cli::try_parse_from(line.split_whitespace()).unwrap().command {
        Command::Start(args) => *args,
        other => panic!("not a start: {other:?}"),
    }
}

const ADDRESSES: &str = "quorate start --node 1 --dir data --addr 127.0.0.1:7101 \
     --gateway 127.0.0.1:6401 --admin 127.0.0.1:8101";

fn resolve(more: &str) -> Result<StartConfig, ConfigError> {
    StartConfig::resolve(start(&format!("{ADDRESSES} {more}")))
}

fn file(text: &str) -> ConfigFile {
    toml::from_str(text).unwrap()
}

#[test]
fn the_flags_of_the_manual_are_understood() {
    let config =
        resolve("--initial-cluster 1=127.0.0.1:7101,2=127.0.0.1:7102,3=127.0.0.1:7103").unwrap();
    assert_eq!((config.node, config.shards, config.replicas), (NodeId(1), 8, 3));
    let Membership::Initial(nodes) = config.membership else { panic!("founds its cluster") };
    assert_eq!(nodes.len(), 3);

    let config = resolve("--join 127.0.0.1:7102 --shards 4 --log redb").unwrap();
    assert_eq!((config.shards, config.log), (4, LogKind::Redb));
    assert_eq!(config.membership, Membership::Join(vec!["127.0.0.1:7102".parse().unwrap()]));
}

#[test]
fn operators_connect_from_the_machine_itself_unless_told_otherwise() {
    let line = "quorate start --node 1 --dir data --addr 10.0.0.1:7101 --gateway 10.0.0.1:6401 \
         --join 10.0.0.2:7101";
    let config = StartConfig::resolve(start(line)).unwrap();
    assert_eq!(config.serve.admin, "127.0.0.1:8101".parse().unwrap());
}

#[test]
fn a_single_node_keeps_a_single_replica() {
    assert_eq!(resolve("--initial-cluster 1=127.0.0.1:7101").unwrap().replicas, 1);
}

#[test]
fn flags_override_the_file() {
    let text = "node = 7\nshards = 2\njoin = \"127.0.0.1:9\"\n[limits]\nconnections_max = 5\n";
    let args = start(&format!("{ADDRESSES} --initial-cluster 1=127.0.0.1:7101"));
    let config = StartConfig::merge(args, file(text)).unwrap();
    assert_eq!((config.node, config.shards), (NodeId(1), 2));
    assert_eq!(config.serve.limits.connections_max, 5);
    assert!(matches!(config.membership, Membership::Initial(_)));
}

#[test]
fn a_node_listens_where_it_is_reached_unless_told_otherwise() {
    let config = resolve("--join 127.0.0.1:9").unwrap();
    assert_eq!(config.listen, config.addr);

    let args = |more: &str| start(&format!("{ADDRESSES} --join 127.0.0.1:9 {more}"));
    let listen = |more, text| {
        let config = StartConfig::merge(args(more), file(text));
        config.map(|config| (config.addr.to_string(), config.listen.to_string()))
    };
    let reached = || "127.0.0.1:7101".to_owned();
    let text = "listen = \"127.0.0.1:7201\"";
    assert_eq!(listen("", text).unwrap(), (reached(), "127.0.0.1:7201".to_owned()));
    let flag = listen("--listen 127.0.0.1:7301", text).unwrap();
    assert_eq!(flag, (reached(), "127.0.0.1:7301".to_owned()));
    let taken = listen("--listen 127.0.0.1:6401", "").unwrap_err().to_string();
    assert!(taken.contains("two of them are 127.0.0.1:6401"), "{taken}");
}

#[test]
fn a_zone_comes_from_flag_or_file_and_needs_a_name() {
    let args = |more: &str| start(&format!("{ADDRESSES} --join 127.0.0.1:9 {more}"));
    let zone = |more, text| StartConfig::merge(args(more), file(text)).map(|config| config.zone);
    assert_eq!(zone("", "").unwrap(), None);
    assert_eq!(zone("", "zone = \"rack-1\"").unwrap().unwrap(), "rack-1");
    assert_eq!(zone("--zone rack-2", "zone = \"rack-1\"").unwrap().unwrap(), "rack-2");
    assert!(matches!(zone("", "zone = \"\""), Err(ConfigError::Zone(_))));
    let long = "z".repeat(65);
    let line = format!("{ADDRESSES} --join 127.0.0.1:9 --zone {long}");
    let refused = Cli::try_parse_from(line.split_whitespace()).unwrap_err().to_string();
    assert!(refused.contains("1 to 64 printable bytes"), "{refused}");
}

/// What Raft's host is told by flags and a file.
fn tuned(more: &str, text: &str) -> Result<(Option<Duration>, bool), ConfigError> {
    let args = start(&format!("{ADDRESSES} --join 127.0.0.1:9 {more}"));
    let mut raft = HostConfig::default();
    StartConfig::merge(args, file(text))?.tune(&mut raft);
    Ok((raft.quiet_after, raft.lease_reads))
}

#[test]
fn groups_rest_after_what_flag_or_file_says() {
    let after = |more: &str, text: &str| tuned(more, text).map(|(after, _)| after);
    assert_eq!(after("", "").unwrap(), HostConfig::default().quiet_after);
    assert_eq!(after("", "quiet_after = 60").unwrap(), Some(Duration::from_secs(60)));
    let flag = after("--quiet-after 4", "quiet_after = 60").unwrap();
    assert_eq!(flag, Some(Duration::from_secs(4)));
    assert_eq!(after("--quiet-after 0", "quiet_after = 60").unwrap(), None);
    for seconds in [1, 3, 86_401, u32::MAX] {
        for refused in [
            after(&format!("--quiet-after {seconds}"), ""),
            after("", &format!("quiet_after = {seconds}")),
        ] {
            let refused = refused.unwrap_err().to_string();
            assert!(refused.contains("between 4 and 86400 seconds, not"), "{refused}");
        }
    }
    let text = "quorate start --quiet-after soon";
    let refused = Cli::try_parse_from(text.split(' ')).unwrap_err().to_string();
    assert!(refused.contains("--quiet-after <SECONDS>"), "{refused}");
}

/// The least that this crate takes is the least that Raft's does.
#[test]
fn the_shortest_rest_fits_the_timings() {
    let raft = HostConfig::default();
    let longest = [raft.metadata, raft.sequencer, raft.shard].map(|it| it.election_max);
    let least = longest.into_iter().max().unwrap() * 2;
    assert_eq!(Duration::from_secs(QUIET_SECONDS_MIN.into()), least);
}

#[test]
fn leaders_read_on_leases_only_when_flag_or_file_says_so() {
    let leased = |more: &str, text: &str| tuned(more, text).map(|(_, leased)| leased);
    assert!(!leased("", "").unwrap());
    assert!(leased("--lease-reads", "").unwrap());
    assert!(leased("--lease-reads --shards 4", "lease_reads = false").unwrap());
    assert!(leased("", "lease_reads = true").unwrap());
    assert!(!leased("--lease-reads=false", "lease_reads = true").unwrap());
    let words = ["quorate", "start", "--lease-reads=perhaps"];
    let refused = Cli::try_parse_from(words).unwrap_err().to_string();
    assert!(refused.contains("true, false"), "{refused}");
}

#[test]
fn unknown_settings_are_rejected() {
    for text in ["nodes = 1", "[limits]\nconnection_max = 1", "[limit]"] {
        let error = toml::from_str::<ConfigFile>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_to_do() {
    let message = |more: &str| resolve(more).unwrap_err().to_string();
    assert!(message("").contains("--initial-cluster 1=127.0.0.1:7101 or --join"));
    assert!(message("--initial-cluster 2=127.0.0.1:7102").contains("add 1=127.0.0.1:7101"));
    assert!(message("--initial-cluster 1=127.0.0.1:7109").contains("but --addr is"));
    assert!(message("--initial-cluster 1=127.0.0.1:7101 --replicas 3").contains("--replicas 3"));
    assert!(message("--join 127.0.0.1:1 --shards 0").contains("between 1 and"));
    assert!(message("--join 127.0.0.1:1 --config /nonexistent").contains("/nonexistent"));
    let same = "quorate start --node 1 --dir d --addr 127.0.0.1:1 --gateway 127.0.0.1:1 \
         --admin 127.0.0.1:2 --join 127.0.0.1:9";
    let error = StartConfig::resolve(start(same)).unwrap_err();
    assert!(matches!(error, ConfigError::SameAddress(_)));
    let missing = StartConfig::resolve(start("quorate start --node 1 --dir d")).unwrap_err();
    assert!(missing.to_string().contains("--addr is missing"));
}

#[test]
fn flags_that_cannot_be_read_name_the_form_they_should_have() {
    let message = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap_err().to_string();
    assert!(message("quorate start --addr localhost").contains("write IP:PORT"));
    assert!(message("quorate start --initial-cluster 7101").contains("write N=IP:PORT"));
    assert!(message("quorate start --initial-cluster 0=127.0.0.1:1").contains("positive"));
    let twice = "quorate start --initial-cluster 1=127.0.0.1:1,1=127.0.0.1:2";
    assert!(message(twice).contains("named twice"));
    let both = "quorate start --initial-cluster 1=127.0.0.1:1 --join 127.0.0.1:2";
    assert!(message(both).contains("cannot be used with"));
    assert!(message("quorate start --frobnicate").contains("--frobnicate"));
    assert!(message("quorate shard move 3 --from 1").contains("--to"));
    assert!(message("quorate status --output yaml").contains("json"));
}
