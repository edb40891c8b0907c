use super::super::checks;
use super::super::fake::{FakeGateway, Faults};
use super::super::progress::wait_until;
use super::*;

/// Runs the load against a gateway until enough was done; also how the
/// accounts and the acknowledged writes look afterwards.
fn run(gateway: &FakeGateway) -> Vec<Journal> {
    let plan = Plan { accounts: 4, connections: 4, gateways: vec![gateway.address] };
    load_accounts(&plan).unwrap();
    let load = Load::start(&plan, &Arc::new(Progress::new())).unwrap();
    wait_until("the load", Duration::from_secs(60), || {
        let Counts { transfers, writes } = load.shared.counts();
        let is_enough = transfers >= 300 && writes >= 300;
        Ok(if is_enough { Ok(()) } else { Err(format!("{transfers}, {writes}")) })
    })
    .unwrap();
    let (_, journals) = load.stop().unwrap();
    assert_eq!(checks::total(gateway.address, 4).unwrap(), 4 * BALANCE);
    let keys = journals.iter().flat_map(|j| j.acknowledged.iter().map(String::as_str));
    let keys: Vec<&str> = keys.collect();
    assert!(keys.len() >= 300);
    assert_eq!(checks::missing(gateway.address, &keys).unwrap(), None);
    journals
}

#[test]
fn the_load_keeps_the_total_and_its_acknowledged_writes() {
    let journals = run(&FakeGateway::start(Faults::default()));
    assert!(journals.iter().all(|journal| journal.wrong.is_empty()), "{journals:?}");
    assert!(journals.iter().all(|journal| journal.unknown == 0));
    assert!(journals.iter().all(|journal| !journal.latencies_micros.is_empty()));
}

#[test]
fn the_load_lives_with_refusals_and_lost_connections() {
    let journals = run(&FakeGateway::start(Faults { refuse_every: 17, drop_every: 1_009 }));
    assert!(journals.iter().all(|journal| journal.wrong.is_empty()), "{journals:?}");
    assert!(journals.iter().any(|journal| journal.refused > 0));
    assert!(journals.iter().any(|journal| journal.unknown > 0));
}

#[test]
fn a_lost_account_is_a_wrong_answer() {
    let gateway = FakeGateway::start(Faults::default());
    let plan = Plan { accounts: 2, connections: 1, gateways: vec![gateway.address] };
    let mut client = Client::new(&plan, 0, Arc::default());
    gateway.tamper(&account(0), "1000");
    assert!(!client.step());
    assert!(client.journal.wrong.first().is_some_and(|what| what.contains("account:1")));
}

#[test]
fn a_client_without_its_node_takes_the_next() {
    let gateway = FakeGateway::start(Faults::default());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plan = Plan { accounts: 2, connections: 2, gateways: vec![nobody, gateway.address] };
    let mut client = Client::new(&plan, 1, Arc::default());
    assert!(!client.step());
    assert!(client.step());
    assert_eq!(client.journal.acknowledged, ["seq:1:0"]);
}

#[test]
fn an_interruption_that_never_ended_counts() {
    let plan = Plan { accounts: 2, connections: 2, gateways: Vec::new() };
    let shared = Arc::new(Shared::default());
    shared.is_over.store(true, Ordering::Relaxed);
    let journal = Client::new(&plan, 1, shared).run();
    assert!(journal.longest.1 > Duration::ZERO);
    assert!(journal.latencies_micros.is_empty());
}
