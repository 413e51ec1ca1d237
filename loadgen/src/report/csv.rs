//! One line a second.
//!
//! Owns the columns: new ones come at the end, before the pairs by server. Refuses to know files.

use std::fmt::Write as _;

use super::Point;

/// The first line. Columns by server follow it in an order that a comment line names when a new one comes.
pub const HEADER: &str = "second,arrivals,ok,failed,open,p50_ms,p90_ms,p99_ms,max_ms";

/// A line of one second: after the columns, `ok` and `failed` for each of `names`.
#[must_use]
pub fn line(point: &Point, names: &[String]) -> String {
    let Point { second, arrivals, ok, failed, open, p50, p90, p99, max, .. } = point;
    let mut line = format!("{second},{arrivals},{ok},{failed},{open},{p50:.3},{p90:.3},{p99:.3},{max:.3}");
    for (index, _) in names.iter().enumerate() {
        let (ok, failed) = point.servers.get(index).copied().unwrap_or_default();
        let _ = write!(line, ",{ok},{failed}");
    }
    line.push('\n');
    line
}

/// A comment that names the servers of the columns that follow.
#[must_use]
pub fn servers(names: &[String]) -> String {
    let mut line = "# servers (ok and failed of each):".to_owned();
    for name in names {
        let _ = write!(line, " {}", name.replace([',', ' '], "_"));
    }
    line.push('\n');
    line
}
