//! What is measured.

use std::future::Future;
use std::path::Path;
use std::time::Instant;

use quorate_benches::{Machine, Spread};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::options::Options;
use crate::{bars, ours, theirs};

/// The part of a turn's commands that goes before what is measured.
const WARM_UP_SHARE: u64 = 10;

/// A way of writing: the leader of a group of three.
pub(crate) trait Leader: Clone + Send + Sync + 'static {
    /// Writes an empty command, and waits for its outcome.
    fn write(&self) -> impl Future<Output = Outcome> + Send;
}

/// Commands per second of each turn.
#[derive(Serialize)]
struct Report {
    machine: Machine,
    quorate: Vec<f64>,
    openraft: Vec<f64>,
}

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> Outcome {
    let machine = Machine::of(Path::new("."));
    println!("{}", machine.describe());
    let is_meant = |who: &str| options.only.as_ref().is_none_or(|only| only == who);
    let mut report = Report { machine, quorate: Vec::new(), openraft: Vec::new() };
    for round in 0..options.rounds {
        // Neither always goes first.
        for turn in 0..2 {
            if (round + turn) % 2 == 0 {
                if is_meant("openraft") {
                    report.openraft.push(measure(options, theirs::start())?);
                }
            } else if is_meant("quorate") {
                report.quorate.push(measure(options, ours::start())?);
            }
        }
    }
    println!("{}", report.table(options));
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    Ok(())
}

impl Report {
    fn table(&self, options: &Options) -> String {
        let Self { machine: _, quorate, openraft } = self;
        let rate = |rates: &[f64]| Spread::of(rates.iter().copied());
        let beside = Spread::of_ratios(quorate, openraft);
        let bar = bars::writing(options).map(|bar| bar.judge(beside)).unwrap_or_default();
        format!(
            "\n| clients | quorate, commands/s | openraft, commands/s | quorate beside openraft | bar |\n\
             |---|---|---|---|---|\n\
             | {} | {} | {} | {beside:.2} | {bar} |",
            options.clients,
            rate(quorate),
            rate(openraft),
        )
    }
}

/// One turn, with members that begin anew.
fn measure<L: Leader>(
    options: &Options,
    start: impl Future<Output = Outcome<L>> + Send + 'static,
) -> Outcome<f64> {
    let members = runtime(options.member_threads)?;
    let clients = runtime(options.client_threads)?;
    let leader = members.block_on(async { tokio::spawn(start).await? })?;
    let each = options.commands.div_ceil(options.clients);
    clients.block_on(write(&leader, options.clients, each.div_ceil(WARM_UP_SHARE)))?;
    let begin = Instant::now();
    clients.block_on(write(&leader, options.clients, each))?;
    let seconds = begin.elapsed().as_secs_f64();
    clients.shutdown_background();
    Ok((options.clients * each) as f64 / seconds)
}

fn runtime(threads: u16) -> Outcome<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(threads.into()).enable_all().build()?)
}

/// Has every client write so many commands, one after another.
async fn write<L: Leader>(leader: &L, clients: u64, each: u64) -> Outcome {
    let client = |_| {
        let leader = leader.clone();
        tokio::spawn(async move {
            for _ in 0..each {
                leader.write().await?;
            }
            Outcome::Ok(())
        })
    };
    let clients: Vec<_> = (0..clients).map(client).collect();
    for client in clients {
        client.await??;
    }
    Ok(())
}
