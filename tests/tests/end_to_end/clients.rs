//! Clients that others wrote, against real nodes: those of them that are
//! installed.

use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use quorate_tests::Cluster;

/// Said whether or not the test fails: around the harness of `cargo test`, which
/// would keep it for a failure. What nextest keeps it shows in the end, by the
/// `success-output` of this test.
fn say(text: &str) {
    let mut around = std::io::stderr();
    writeln!(around, "{text}").unwrap();
}

/// Whether a program runs here; says so loudly if it does not.
fn is_here(program: &str, arguments: &[&str]) -> bool {
    let ran = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let is_here = ran.is_ok_and(|status| status.success());
    if !is_here {
        say(&format!("NOT RUN: {program} {} does not work here", arguments.join(" ")));
    }
    is_here
}

/// What a program prints; it must end well.
fn output(program: &str, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {printed} {said}");
    printed
}

#[test]
fn common_clients_work_against_any_node() {
    let cluster = Cluster::start(3);
    if is_here("redis-cli", &["--version"]) {
        redis_cli(cluster.gateway(1));
    }
    if is_here("redis-benchmark", &["--version"]) {
        redis_benchmark(cluster.gateway(2));
    }
    if is_here("python3", &["-c", "import redis; assert redis.VERSION[0] >= 5"]) {
        let port = cluster.gateway(3).port().to_string();
        assert_eq!(output("python3", &["-", &port], PYTHON).trim(), "all well");
    }
    cluster.wait_agreement();
}

fn redis_cli(gateway: SocketAddr) {
    let port = gateway.port().to_string();
    let cli = |words: &[&str]| {
        let arguments = [&["-h", "127.0.0.1", "-p", &port, "-e"], words].concat();
        output("redis-cli", &arguments, "").trim().to_owned()
    };
    assert_eq!(cli(&["SET", "cli:a", "1", "EX", "100"]), "OK");
    assert_eq!(cli(&["INCR", "cli:a"]), "2");
    assert_eq!(cli(&["-3", "GET", "cli:a"]), "2");
    assert_eq!(cli(&["--scan", "--pattern", "cli:*"]), "cli:a");
    assert!(cli(&["CLIENT", "LIST"]).contains("cmd=client|list"));
    assert_eq!(cli(&["INFO", "replication"]).replace('\r', ""), "# Replication\nrole:master");
    let session = "MULTI\nSET cli:b x\nAPPEND cli:b y\nEXEC\nGET cli:b\n";
    let said = output("redis-cli", &["-p", &port, "-e"], session);
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["OK", "QUEUED", "QUEUED", "OK", "2", "xy"]
    );
    let piped = "SET cli:c 1\r\n".repeat(100);
    assert!(
        output("redis-cli", &["-p", &port, "--pipe"], &piped).contains("errors: 0, replies: 100")
    );
}

fn redis_benchmark(gateway: SocketAddr) {
    let port = gateway.port().to_string();
    for pipeline in ["1", "16"] {
        let arguments = ["-p", &port, "-t", "set,get,incr,mset", "-n", "500", "-c", "10"];
        let arguments = [&arguments[..], &["-r", "100", "-P", pipeline, "-q"]].concat();
        let said = output("redis-benchmark", &arguments, "");
        assert!(!said.contains("Error"), "{said}");
        for test in ["SET", "GET", "INCR", "MSET (10 keys)"] {
            let is_result = |line: &str| {
                line.trim_start().starts_with(&format!("{test}: ")) && line.contains("requests per")
            };
            assert!(said.split(['\r', '\n']).any(is_result), "{test}: {said}");
        }
    }
}

const PYTHON: &str = r#"
import sys, redis
for protocol in (2, 3):
    r = redis.Redis(port=int(sys.argv[1]), protocol=protocol, decode_responses=True)
    r.flushall()
    assert r.set("py:a", "1", ex=100) and r.get("py:a") == "1" and 0 < r.ttl("py:a") <= 100
    assert r.mset({f"py:{n}": n for n in range(50)})
    assert r.mget("py:1", "py:2", "none") == ["1", "2", None]
    assert sorted(r.scan_iter("py:*", count=7)) == sorted(r.keys("py:*"))
    assert r.incrby("py:1", 5) == 6 and r.delete("py:1", "none") == 1
    with r.pipeline(transaction=True) as pipe:
        assert pipe.set("py:x", "1").incr("py:x").get("py:x").execute() == [True, 2, "2"]
    with r.pipeline() as pipe:
        pipe.watch("py:x")
        r.set("py:x", "changed")
        pipe.multi()
        pipe.set("py:x", "lost")
        try:
            pipe.execute()
            raise SystemExit("a watched key changed unnoticed")
        except redis.WatchError:
            pass
    assert r.get("py:x") == "changed"
    with r.pipeline(transaction=False) as pipe:
        for n in range(200):
            pipe.incr("py:n")
        assert pipe.execute() == list(range(1, 201))
    r.client_setname("me")
    mine = r.client_info()
    assert mine["name"] == "me" and mine["cmd"] == "client|info", mine
    assert any(int(c["id"]) == int(mine["id"]) for c in r.client_list())
    assert r.info("server")["redis_mode"] == "standalone" and r.info("nosuch") == {}
    assert r.dbsize() == len(r.keys()) and r.ping()
    try:
        r.set("py:a", "1", ex=9223372036854775807)
        raise SystemExit("an expiry beyond all time was taken")
    except redis.ResponseError as error:
        assert "invalid expire time in 'set' command" in str(error)
    r.close()
print("all well")
"#;
