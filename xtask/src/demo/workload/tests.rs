use super::super::checks;
use super::super::fake::{FakeGateway, Faults};
use super::*;

/// Runs the load against a gateway until enough was done; also how the
/// accounts and the acknowledged writes look afterwards.
fn run(gateway: &FakeGateway) -> Vec<Journal> {
    let plan = Plan { accounts: 4, connections: 4, gateways: vec![gateway.address] };
    let interrupt = Interrupt::default();
    load_accounts(&plan, &interrupt).unwrap();
    let load = Load::start(&plan, &Arc::new(Progress::new())).unwrap();
    let wait = Wait::new("the load", Duration::from_secs(60));
    let is_enough = interrupt.wait_until(&wait, || {
        let Counts { transfers, writes } = load.shared.counts();
        let is_enough = transfers >= 300 && writes >= 300;
        Ok(if is_enough { Ok(()) } else { Err(format!("{transfers}, {writes}")) })
    });
    is_enough.unwrap();
    let (_, journals) = load.stop().unwrap();
    assert_eq!(checks::total(gateway.address, 4).unwrap(), 4 * BALANCE);
    let keys = journals.iter().flat_map(|j| j.acknowledged.iter().map(|write| write.key.as_str()));
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
    let keys = client.journal.acknowledged.iter().map(|write| write.key.as_str());
    assert_eq!(keys.collect::<Vec<_>>(), ["seq:1:0"]);
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

#[test]
fn loading_accounts_outlives_a_lost_connection() {
    // The second batch of accounts meets the fault, and is sent once more.
    let gateway = FakeGateway::start(Faults { refuse_every: 230, drop_every: 120 });
    let plan = Plan { accounts: 150, connections: 1, gateways: vec![gateway.address] };
    load_accounts(&plan, &Interrupt::default()).unwrap();
    assert_eq!(checks::total(gateway.address, 150).unwrap(), 150 * BALANCE);
}

#[test]
fn loading_accounts_ends_when_time_is_up() {
    let gateway = FakeGateway::start(Faults { refuse_every: 1, ..Faults::default() });
    let plan = Plan { accounts: 2, connections: 1, gateways: vec![gateway.address] };
    let wait = Wait::new("accounts are loaded", Duration::ZERO);
    let error = load_accounts_within(&plan, &Interrupt::default(), &wait).unwrap_err().to_string();
    assert!(error.contains("REFUSED"), "{error}");
}
