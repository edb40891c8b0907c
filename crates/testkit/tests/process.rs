//! Real child processes: this test binary itself, told to serve.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use quorate_testkit::TestkitError;
use quorate_testkit::process::{Child, ProcessSpec, Signal, free_ports, get};

const SERVE_AT: &str = "TESTKIT_SERVE_AT";
const PATIENCE: Duration = Duration::from_secs(60);

/// Not a test of its own unless it was started as a child: then it answers
/// `/ready` with 200 and all else with 503, for as long as it lives.
#[test]
fn serves_when_told_to() {
    let Ok(address) = std::env::var(SERVE_AT) else { return };
    println!("serving at {address}");
    for stream in TcpListener::bind(address).unwrap().incoming() {
        let mut stream = stream.unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) == 1 {
            request.push(byte[0]);
        }
        let status = if request.starts_with(b"GET /ready ") { "200 OK" } else { "503 No" };
        drop(write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{status}"));
    }
}

fn server(directory: &Path) -> (Child, SocketAddr) {
    let address = free_ports(1).unwrap().release()[0];
    let mut spec =
        ProcessSpec::new("server", std::env::current_exe().unwrap(), directory.join("log"))
            .arg("--exact")
            .arg("serves_when_told_to")
            .arg("--nocapture");
    spec.env.push((SERVE_AT.to_owned(), address.to_string()));
    let mut child = spec.start().unwrap();
    child.wait_ready(address, "/ready", PATIENCE).unwrap();
    (child, address)
}

fn is_answered(address: SocketAddr) -> bool {
    get(address, "/ready", Duration::from_millis(300)).is_ok_and(|answer| answer.status == 200)
}

#[test]
fn a_server_is_started_waited_for_and_killed() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, address) = server(directory.path());
    assert_eq!(get(address, "/else", PATIENCE).unwrap().status, 503);
    assert_eq!(get(address, "/ready", PATIENCE).unwrap().body, b"200 OK");
    assert!(child.log_tail().contains("serving at"));
    assert!(child.exited().unwrap().is_none());
    child.signal(Signal::Kill).unwrap();
    assert!(child.exited().unwrap().is_some());
    // Its port is free at once.
    drop(TcpListener::bind(address).unwrap());
    assert!(matches!(child.signal(Signal::Stop), Err(TestkitError::Process { .. })));
}

#[test]
fn a_stopped_server_is_silent_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, address) = server(directory.path());
    child.signal(Signal::Stop).unwrap();
    assert!(!is_answered(address));
    child.signal(Signal::Continue).unwrap();
    child.wait_ready(address, "/ready", PATIENCE).unwrap();
    child.signal(Signal::Terminate).unwrap();
    assert!(!child.wait_exited(PATIENCE).unwrap().success());
}

#[test]
fn a_dropped_child_is_dead_even_when_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, address) = server(directory.path());
    child.signal(Signal::Stop).unwrap();
    drop(child);
    drop(TcpListener::bind(address).unwrap());
}

#[test]
fn a_process_that_ends_early_is_reported_with_its_log() {
    let directory = tempfile::tempdir().unwrap();
    let address = free_ports(1).unwrap().release()[0];
    let mut child = ProcessSpec::new("oops", "/bin/sh", directory.path().join("log"))
        .arg("-c")
        .arg("echo something is wrong >&2; exit 3")
        .start()
        .unwrap();
    let error = child.wait_ready(address, "/ready", PATIENCE).unwrap_err().to_string();
    assert!(error.contains("oops") && error.contains("something is wrong"), "{error}");
}

#[test]
fn free_ports_are_different() {
    let ports = free_ports(20).unwrap();
    let different: std::collections::BTreeSet<_> = ports.addresses().iter().collect();
    assert_eq!(different.len(), 20);
}
