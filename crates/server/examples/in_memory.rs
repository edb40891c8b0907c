//! A gateway in front of a map in memory: the smallest backend there can be.
//!
//! It runs the same procedures as a cluster's replicas do, one call after the
//! other, and so shows what a [`Backend`] has to provide.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;

use parking_lot::Mutex;
use quorate_calvin::{Call, Inputs, Procedures, Read};
use quorate_server::{
    Backend, BackendError, BackendInfo, Gateway, GatewayLimits, KeyPage, Metrics, RedisProcedures,
};
use quorate_types::runtime::{self, BoxFuture};
use quorate_types::{Blob, watch};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Values and their versions. Expiry is left out.
#[derive(Default)]
struct Rows(BTreeMap<Blob, (u64, Option<Blob>)>);

impl Rows {
    fn live(&self) -> impl Iterator<Item = (Blob, Blob)> + '_ {
        self.0.iter().filter_map(|(key, (_, value))| Some((key.clone(), value.clone()?)))
    }

    fn execute(&mut self, call: &Call) -> Blob {
        let mut inputs = Inputs::default();
        for key in &call.footprint.reads {
            let (version, value) = self.0.get(key).cloned().unwrap_or_default();
            let read = Read { key: key.clone(), version, value, expires_millis: None };
            inputs.reads.insert(key.clone(), read);
        }
        for access in &call.footprint.ranges {
            let mut rows = self.live();
            inputs.scans.push(RedisProcedures.scan(call, &access.range, &mut rows));
        }
        let outcome = RedisProcedures.run(call, &inputs, 0, 0);
        if !outcome.clears.is_empty() {
            self.0.values_mut().for_each(|(version, value)| {
                *version += 1;
                *value = None;
            });
        }
        for write in outcome.writes {
            let (version, value) = self.0.entry(write.key).or_default();
            *version += 1;
            *value = write.value;
        }
        outcome.result
    }
}

#[derive(Default)]
struct InMemory(Mutex<Rows>);

impl Backend for InMemory {
    fn execute(&self, call: Call) -> BoxFuture<Result<Blob, BackendError>> {
        let result = self.0.lock().execute(&call);
        Box::pin(async move { Ok(result) })
    }

    fn scan_keys(&self, from: Blob, limit: usize) -> BoxFuture<Result<KeyPage, BackendError>> {
        let rows = self.0.lock();
        let mut keys = rows.live().map(|(key, _)| key).skip_while(|key| *key < from);
        let page: Vec<Blob> = keys.by_ref().take(limit).collect();
        let (keys, next) = (page, keys.next());
        Box::pin(async move { Ok(KeyPage { keys, next }) })
    }

    fn serving(&self) -> bool {
        true
    }

    fn info(&self) -> BackendInfo {
        BackendInfo { node: 1, nodes: 1, shards: 1, ..BackendInfo::default() }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let (stop, stopped) = watch::channel(false);
    let gateway =
        Gateway::new(Arc::new(InMemory::default()), GatewayLimits::default(), Metrics::default());
    let served = runtime::spawn(gateway.serve(listener, stopped));

    let mut client = TcpStream::connect(address).await?;
    let commands = "SET greeting hello\r\nAPPEND greeting ', world'\r\nGET greeting\r\nMULTI\r\n\
         INCR visits\r\nDBSIZE\r\nEXEC\r\nQUIT\r\n";
    client.write_all(commands.as_bytes()).await?;
    let mut answers = String::new();
    client.read_to_string(&mut answers).await?;
    print!("{answers}");

    stop.send(true);
    served.await?;
    Ok(())
}
