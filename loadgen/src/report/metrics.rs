//! A run for Prometheus, in its text format.
//!
//! Owns the names. Refuses to know how they are fetched. Cannot fail.

use std::fmt::Write as _;

use crate::run::Second;
use crate::tally::Latency;

/// Sums since the begin, and the last second.
pub struct Sums {
    run: String,
    ok: u64,
    failed: u64,
    arrivals: u64,
    connections: u64,
    broken: u64,
    bytes: u64,
    open: u64,
    latency: Latency,
    micros: f64,
    servers: Vec<(String, u64, u64)>,
}

impl Sums {
    /// Of a run that begins.
    #[must_use]
    pub fn new(run: &str) -> Self {
        Self {
            run: run.to_owned(),
            ok: 0,
            failed: 0,
            arrivals: 0,
            connections: 0,
            broken: 0,
            bytes: 0,
            open: 0,
            latency: Latency::new(),
            micros: 0.0,
            servers: Vec::new(),
        }
    }

    /// Another second.
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn add(&mut self, second: &Second) {
        let counts = &second.slice.counts;
        self.ok += counts.ok;
        self.failed += counts.failed;
        self.arrivals += counts.arrivals;
        self.connections += counts.connections;
        self.broken += counts.broken;
        self.bytes += counts.bytes;
        self.open = second.slice.open;
        self.latency.absorb(&second.slice.latency);
        self.micros += second.slice.latency.0.mean() * second.slice.latency.0.len() as f64;
        for (place, name) in second.names.iter().enumerate() {
            if self.servers.len() <= place {
                self.servers.push((name.clone(), 0, 0));
            }
            let (ok, failed) = second.slice.servers.get(place).copied().unwrap_or_default();
            if let Some(row) = self.servers.get_mut(place) {
                *row = (row.0.clone(), row.1 + ok, row.2 + failed);
            }
        }
    }

    /// The page.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts")]
    pub fn render(&self) -> String {
        let mut out =
            format!("# TYPE smtp_loadgen_info gauge\nsmtp_loadgen_info{{run=\"{}\"}} 1\n", self.run);
        for (name, kind, value) in [
            ("arrivals_total", "counter", self.arrivals),
            ("ok_total", "counter", self.ok),
            ("failed_total", "counter", self.failed),
            ("connections_total", "counter", self.connections),
            ("broken_connections_total", "counter", self.broken),
            ("content_bytes_total", "counter", self.bytes),
            ("open_connections", "gauge", self.open),
        ] {
            let _ = writeln!(out, "# TYPE smtp_loadgen_{name} {kind}\nsmtp_loadgen_{name} {value}");
        }
        out.push_str("# TYPE smtp_loadgen_latency_seconds summary\n");
        for quantile in [0.5, 0.9, 0.95, 0.99, 0.999] {
            let value = self.latency.0.value_at_quantile(quantile) as f64 / 1e6;
            let _ = writeln!(out, "smtp_loadgen_latency_seconds{{quantile=\"{quantile}\"}} {value}");
        }
        let _ = writeln!(
            out,
            "smtp_loadgen_latency_seconds_sum {}\nsmtp_loadgen_latency_seconds_count {}",
            self.micros / 1e6,
            self.latency.0.len()
        );
        if !self.servers.is_empty() {
            out.push_str("# TYPE smtp_loadgen_server_done_total counter\n");
        }
        for (name, ok, failed) in &self.servers {
            let name = name.replace('\\', "\\\\").replace('"', "\\\"");
            let _ = writeln!(out, "smtp_loadgen_server_done_total{{server=\"{name}\",result=\"ok\"}} {ok}");
            let _ = writeln!(
                out,
                "smtp_loadgen_server_done_total{{server=\"{name}\",result=\"failed\"}} {failed}"
            );
        }
        out
    }
}
