//! Counters of the gateway, printed in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::commands::commands;

/// Upper bounds of the latency histogram's buckets, in microseconds: from a
/// local answer to a failover.
const LATENCY_BOUNDS_MICROS: [u64; 15] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 5_000_000, 30_000_000,
];

/// What the gateway counts. Clones share the counters.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    counters: Arc<Counters>,
}

#[derive(Debug)]
struct Counters {
    /// One for each row of the command table.
    commands: Vec<AtomicU64>,
    error_replies: AtomicU64,
    refused: AtomicU64,
    unknown: AtomicU64,
    protocol_errors: AtomicU64,
    connections_accepted: AtomicU64,
    connections_refused: AtomicU64,
    connections_open: AtomicU64,
    latency_buckets: [AtomicU64; LATENCY_BOUNDS_MICROS.len()],
    latency_count: AtomicU64,
    latency_sum_micros: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commands: commands().iter().map(|_| AtomicU64::new(0)).collect(),
            error_replies: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            protocol_errors: AtomicU64::new(0),
            connections_accepted: AtomicU64::new(0),
            connections_refused: AtomicU64::new(0),
            connections_open: AtomicU64::new(0),
            latency_buckets: std::array::from_fn(|_| AtomicU64::new(0)),
            latency_count: AtomicU64::new(0),
            latency_sum_micros: AtomicU64::new(0),
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Metrics {
    pub(crate) fn command(&self, index: usize) {
        if let Some(counter) = self.counters.commands.get(index) {
            add(counter);
        }
    }

    pub(crate) fn error_reply(&self) {
        add(&self.counters.error_replies);
    }

    pub(crate) fn refused(&self) {
        add(&self.counters.refused);
    }

    pub(crate) fn unknown(&self) {
        add(&self.counters.unknown);
    }

    pub(crate) fn protocol_error(&self) {
        add(&self.counters.protocol_errors);
    }

    pub(crate) fn connection_opened(&self) {
        add(&self.counters.connections_accepted);
        add(&self.counters.connections_open);
    }

    pub(crate) fn connection_refused(&self) {
        add(&self.counters.connections_refused);
    }

    pub(crate) fn connection_closed(&self) {
        self.counters.connections_open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Connections open now.
    #[must_use]
    pub fn connections_open(&self) -> u64 {
        read(&self.counters.connections_open)
    }

    /// Connections accepted since the start.
    #[must_use]
    pub fn connections_accepted(&self) -> u64 {
        read(&self.counters.connections_accepted)
    }

    /// Commands received since the start.
    #[must_use]
    pub fn commands_received(&self) -> u64 {
        self.counters.commands.iter().map(read).sum()
    }

    /// The time between a data command's arrival and its answer.
    pub(crate) fn latency(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let bounds = LATENCY_BOUNDS_MICROS.iter().zip(&self.counters.latency_buckets);
        if let Some((_, bucket)) = bounds.into_iter().find(|(bound, _)| micros <= **bound) {
            add(bucket);
        }
        add(&self.counters.latency_count);
        self.counters.latency_sum_micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Everything as text.
    #[must_use]
    pub fn render(&self) -> String {
        let counters = &*self.counters;
        let mut text = String::new();
        header(
            &mut text,
            "quorate_gateway_commands_total",
            "counter",
            "Commands received, by name.",
        );
        for (spec, counter) in commands().iter().zip(&counters.commands) {
            let (name, count) = (spec.name, read(counter));
            if count > 0 {
                line(
                    &mut text,
                    format_args!("quorate_gateway_commands_total{{command=\"{name}\"}} {count}"),
                );
            }
        }
        let plain = [
            ("error_replies_total", "counter", "Error replies sent.", &counters.error_replies),
            ("refused_total", "counter", "Calls refused before execution.", &counters.refused),
            ("unknown_total", "counter", "Calls whose outcome is unknown.", &counters.unknown),
            (
                "protocol_errors_total",
                "counter",
                "Connections closed because of malformed input.",
                &counters.protocol_errors,
            ),
            (
                "connections_accepted_total",
                "counter",
                "Connections accepted.",
                &counters.connections_accepted,
            ),
            (
                "connections_refused_total",
                "counter",
                "Connections refused at the limit.",
                &counters.connections_refused,
            ),
            ("connections_open", "gauge", "Connections open now.", &counters.connections_open),
        ];
        for (name, kind, help, counter) in plain {
            let name = format!("quorate_gateway_{name}");
            header(&mut text, &name, kind, help);
            line(&mut text, format_args!("{name} {}", read(counter)));
        }
        self.render_latency(&mut text);
        text
    }

    fn render_latency(&self, text: &mut String) {
        const NAME: &str = "quorate_gateway_latency_seconds";
        let counters = &*self.counters;
        header(text, NAME, "histogram", "Time from a data command's arrival to its answer.");
        let mut below = 0;
        for (bound, bucket) in LATENCY_BOUNDS_MICROS.iter().zip(&counters.latency_buckets) {
            below += read(bucket);
            let bound = seconds(*bound);
            line(text, format_args!("{NAME}_bucket{{le=\"{bound}\"}} {below}"));
        }
        let count = read(&counters.latency_count);
        line(text, format_args!("{NAME}_bucket{{le=\"+Inf\"}} {count}"));
        line(text, format_args!("{NAME}_sum {}", seconds(read(&counters.latency_sum_micros))));
        line(text, format_args!("{NAME}_count {count}"));
    }
}

fn header(text: &mut String, name: &str, kind: &str, help: &str) {
    line(text, format_args!("# HELP {name} {help}"));
    line(text, format_args!("# TYPE {name} {kind}"));
}

/// Writing to a `String` cannot fail.
fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(arguments);
    text.push('\n');
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}
