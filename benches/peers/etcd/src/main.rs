//! `bench-etcd ENDPOINTS WORK CLIENTS WARM-UP MILLISECONDS KEYS VALUE`: clients
//! of etcd with one request in flight each, for as long as is said behind a
//! warm-up. They put `VALUE` bytes at any of so many keys (`set`) or read them
//! (`get`), linearizably as is etcd's default; `fill` puts every key once.
//!
//! Prints a line `begin` when the warm-up is over, and one of JSON at the end.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use etcd_client::Client;

/// Clients that share a connection, as in etcd's own load generator when it is
/// run as its manual says.
const CLIENTS_PER_CONNECTION: usize = 10;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is asked for.
#[derive(Debug)]
struct Plan {
    work: Work,
    keys: u64,
    value: String,
    begin: Instant,
    end: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Set,
    Get,
    Fill,
}

/// What came of it.
#[derive(Debug, Default)]
struct Measured {
    micros: Vec<u64>,
    errors: u64,
    first_error: Option<String>,
}

fn key(number: u64) -> String {
    format!("key:{number:06}")
}

/// A chance that is the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

async fn client(mut etcd: Client, plan: Arc<Plan>, number: u64) -> Measured {
    let mut chance = Chance(number);
    let mut measured = Measured::default();
    loop {
        let start = Instant::now();
        if start >= plan.end {
            return measured;
        }
        let key = key(chance.below(plan.keys));
        let done = match plan.work {
            Work::Get => etcd.get(key, None).await.map(|found| found.count() == 1),
            Work::Set | Work::Fill => etcd.put(key, plan.value.as_str(), None).await.map(|_| true),
        };
        let now = Instant::now();
        match done {
            Ok(true) if start >= plan.begin && now <= plan.end => {
                let micros = now.duration_since(start).as_micros();
                measured.micros.push(u64::try_from(micros).unwrap_or(u64::MAX));
            }
            Ok(true) => {}
            failed => {
                measured.errors += 1;
                let why = failed.map_or_else(|error| error.to_string(), |_| "no value".to_owned());
                measured.first_error.get_or_insert(why);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoints, work, clients, warm_up, millis, keys, value] = arguments.as_slice() else {
        let usage =
            "usage: bench-etcd IP:PORT,... set|get|fill CLIENTS WARM-UP MILLISECONDS KEYS VALUE";
        return Err(usage.into());
    };
    let work = match work.as_str() {
        "set" => Work::Set,
        "get" => Work::Get,
        "fill" => Work::Fill,
        other => return Err(format!("there is no work '{other}'").into()),
    };
    let endpoints: Vec<&str> = endpoints.split(',').collect();
    let clients: usize = clients.parse()?;
    let mut connections = Vec::new();
    for number in 0..clients.div_ceil(CLIENTS_PER_CONNECTION).max(endpoints.len().min(clients)) {
        let endpoint = endpoints.get(number % endpoints.len()).ok_or("no endpoint")?;
        connections.push(Client::connect([endpoint], None).await?);
    }
    let (keys, value) = (keys.parse()?, "x".repeat(value.parse()?));
    if work == Work::Fill {
        let first = connections.first_mut().ok_or("no client")?;
        for number in 0..keys {
            first.put(key(number), value.as_str(), None).await?;
        }
        return Ok(());
    }
    let begin = Instant::now() + Duration::from_millis(warm_up.parse()?);
    let end = begin + Duration::from_millis(millis.parse()?);
    let plan = Arc::new(Plan { work, keys, value, begin, end });
    let clients: Vec<_> = (0..clients)
        .map(|number| {
            let etcd = connections[number % connections.len()].clone();
            tokio::spawn(client(etcd, Arc::clone(&plan), number as u64))
        })
        .collect();
    tokio::time::sleep_until(begin.into()).await;
    println!("begin");
    let mut all = Measured::default();
    for client in clients {
        let measured = client.await?;
        all.micros.extend(measured.micros);
        all.errors += measured.errors;
        all.first_error = all.first_error.or(measured.first_error);
    }
    let Measured { micros, errors, first_error } = all;
    println!(
        "{}",
        serde_json::json!({ "micros": micros, "errors": errors, "first_error": first_error })
    );
    Ok(())
}
