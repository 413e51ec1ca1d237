//! The prober with thousands of servers: does it ask them evenly, and in time?

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use smtp_director::config::{CheckPlan, Tier};
use smtp_director::prober::Prober;
use tokio::sync::mpsc;

use crate::process::{cpu, memory};
use crate::rate::{spec, target};
use crate::responder::Responder;

/// Width of a bucket of starts, in microseconds.
const BUCKET: u64 = 100_000;

/// Asks `reals` servers each `interval`, and tells what came of it after the first interval. Needs both cores.
#[expect(clippy::cast_precision_loss, reason = "counts of a short run")]
pub(crate) fn pace(reals: u16, interval: Duration, time: Duration) {
    let responder = Responder::start("record");
    let mut plans: Vec<_> = (0..reals)
        .map(|index| CheckPlan {
            spec: spec(target(index.into(), responder.port)),
            tier: Tier::Base,
            interval,
            retry: interval,
            fall: 3,
            rise: 2,
            damping: true,
            verdicts: Arc::default(),
            warn_days: 0,
            connects_between: 0,
            canary: None,
        })
        .collect();
    plans.sort();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let pid = std::process::id();
    let (before, [idle, _]) = (cpu(pid), memory(pid));
    let (mut late, mut failed) = (Vec::new(), 0);
    runtime.block_on(async {
        let (reports, mut inbox) = mpsc::channel(256);
        let mut prober = Prober::new(reports);
        prober.sync(plans);
        let _ = tokio::time::timeout(time, async {
            while let Some(report) = inbox.recv().await {
                late.push(report.late);
                failed += u64::from(report.outcome.verdict.is_err());
            }
        })
        .await;
    });
    let (used, [resident, _]) = (cpu(pid) - before, memory(pid));
    drop(runtime);

    late.sort_unstable();
    let share = |share: usize| late[(late.len() - 1) * share / 1000];
    println!(
        "{reals} servers every {} s for {} s: {} checks, {failed} failed, {:.1} us of CPU each, {} KiB resident for the tasks",
        interval.as_secs(),
        time.as_secs(),
        late.len(),
        used.as_secs_f64() / late.len() as f64 * 1e6,
        resident - idle,
    );
    println!(
        "  late: median {:?}, 99 % {:?}, 99.9 % {:?}, worst {:?}",
        share(500),
        share(990),
        share(999),
        share(1000)
    );
    let starts = responder.end();
    let end = u64::try_from(time.as_micros()).expect("short") / BUCKET;
    let mut buckets: BTreeMap<u64, u64> = (0..end).map(|bucket| (bucket, 0)).collect();
    for (micros, _) in &starts {
        buckets.entry(micros / BUCKET).and_modify(|count| *count += 1);
    }
    let each: Vec<_> = buckets.into_values().collect();
    let first = usize::try_from(u64::try_from(interval.as_micros()).expect("short") / BUCKET).expect("short");
    for (what, part) in [("first interval", &each[..first]), ("after it", &each[first..])] {
        let mut part = part.to_vec();
        part.sort_unstable();
        println!(
            "  starts in 100 ms, {what}: least {}, median {}, most {}",
            part[0],
            part[part.len() / 2],
            part[part.len() - 1]
        );
    }
}
