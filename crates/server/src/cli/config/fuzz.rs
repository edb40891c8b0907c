//! Fuzz targets: what operators write.

use clap::Parser;
use quorate_testkit::fuzz::Corpus;

use super::super::args::Cli;
use super::*;

const FILES: [&str; 3] = [
    "node = 1\ndir = \"data\"\naddr = \"127.0.0.1:7101\"\ngateway = \"127.0.0.1:6401\"\n\
     initial_cluster = \"1=127.0.0.1:7101,2=127.0.0.1:7102\"\nzone = \"a\"\nreplicas = 2\n",
    "node = 3\ndir = 'd'\naddr = \"[::1]:0\"\nlisten = \"0.0.0.0:7\"\ngateway = \"10.0.0.1:6401\"\n\
     admin = \"10.0.0.1:8101\"\njoin = \"10.0.0.2:7101, 10.0.0.3:7101\"\nshards = 4096\nlog = \"redb\"\n\
     quiet_after = 60\nlease_reads = true\n",
    "# limits\nnode = 1_000\n[limits]\nconnections_max = 5\nbulk_bytes_max = 0x100\n",
];

#[test]
fn any_file_is_a_configuration_or_is_refused_in_words() {
    quorate_testkit::fuzz!(Corpus::of(FILES), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let file = match toml::from_str::<ConfigFile>(text) {
            Ok(file) => file,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        };
        match StartConfig::merge(StartArgs::default(), file) {
            Ok(config) => {
                assert!(config.check().is_ok());
                assert!(config.node.0 > 0 && (1..=SHARDS_MAX).contains(&config.shards));
                assert!((1..=REPLICAS_MAX).contains(&config.replicas));
                assert!(config.quiet_after == 0 || config.quiet_after >= QUIET_SECONDS_MIN);
                let (addr, gateway) = (config.addr, config.serve.gateway);
                assert!(addr != gateway || addr.port() == 0, "two doors at one address");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[test]
fn any_text_is_addresses_or_is_refused_in_words() {
    let texts = ["1=127.0.0.1:7101,2=[::1]:7102", "127.0.0.1:7101, 10.0.0.1:0", "rack-1"];
    quorate_testkit::fuzz!(Corpus::of(texts), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(cluster) = text.parse::<InitialCluster>() {
            let again: Result<InitialCluster, String> = cluster.to_string().parse();
            assert_eq!(again.as_ref(), Ok(&cluster));
            assert!(cluster.0.keys().all(|node| node.0 > 0));
        }
        if let Ok(join) = text.parse::<JoinList>() {
            assert!(!join.0.is_empty());
        }
        if let Ok(address) = parse_address(text) {
            assert_eq!(parse_address(&address.to_string()), Ok(address));
        }
        if let Ok(zone) = parse_zone(text) {
            assert!(!zone.is_empty() && !zone.contains('\n'));
        }
    });
}

#[test]
fn any_line_of_flags_is_a_command_or_is_refused_in_words() {
    let lines = [
        "start --node 1 --dir d --addr 127.0.0.1:1 --gateway 127.0.0.1:2 --join 127.0.0.1:9",
        "start --initial-cluster 1=127.0.0.1:1 --shards 4 --replicas 3 --zone a --log segments --config file",
        "start --node 2 --quiet-after 60 --lease-reads=false --lease-reads",
        "shard move 3 --from 1 --to 2 --admin 127.0.0.1:8101 --output json",
        "shard split 3 --key k",
        "node drain 3",
        "dev --nodes 9 --base-port 64000",
    ];
    quorate_testkit::fuzz!(Corpus::of(lines), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let words = std::iter::once("quorate").chain(text.split(' '));
        if let Err(error) = Cli::try_parse_from(words) {
            assert!(!error.to_string().is_empty());
        }
    });
}
