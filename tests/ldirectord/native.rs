//! Ours, on the memory dataplane, as `plan` goes about it.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use smtp_director::config::Config;
use smtp_director::config::load::load;
use smtp_director::dataplane::Dataplane as _;
use smtp_director::dataplane::memory::Memory;
use smtp_director::model::{Family, Forward, Protocol, SchedulerFlags, Table, VirtualId, VirtualSettings};
use smtp_director::reconcile::diff;
use smtp_director::state::{Finding, State};

#[derive(Debug)]
pub(super) struct Farm {
    pub(super) config: Config,
}

impl Farm {
    /// The configuration of a file, or the report.
    pub(super) fn load(path: &Path) -> Result<Self, String> {
        load(path, []).map(|config| Self { config }).map_err(|error| error.to_string())
    }

    /// The table that comes of it when every server has been asked once.
    pub(super) fn table(&self) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let table = runtime.block_on(async {
            let mut state = State::new(self.config.clone());
            let plans: Vec<_> = state.checks().cloned().collect();
            for plan in plans {
                let outcome = checks::run(&plan.spec).await;
                #[expect(clippy::disallowed_methods, reason = "when the answer came")]
                let now = Instant::now();
                let finding = Finding::of_one(now, &plan.verdicts, outcome);
                state.absorb(&plan, finding);
            }
            let mut memory = Memory::default();
            let dump = memory.dump().await.unwrap();
            #[expect(clippy::disallowed_methods, reason = "nothing has begun to drain before now")]
            let desired = state.desired(Instant::now(), &dump);
            for op in diff(&dump.table, &desired, &state.owned()) {
                memory.apply(&op).await.unwrap();
            }
            memory.table
        });
        show(&table)
    }
}

/// The table in the form in which the recording ipvsadm keeps it.
pub(super) fn show(table: &Table) -> String {
    let mut lines = Vec::new();
    for (id, virtual_) in &table.virtuals {
        let key = match id {
            VirtualId::Address { protocol: Protocol::Tcp, address } => format!("-t {address}"),
            VirtualId::Address { protocol: Protocol::Udp, address } => format!("-u {address}"),
            VirtualId::Fwmark { mark, family: Family::V4 } => format!("-f {mark}"),
            VirtualId::Fwmark { mark, family: Family::V6 } => format!("-f {mark} -6"),
        };
        lines.push(format!("V\t{key}\t{}", settings(&virtual_.settings)));
        for (real, settings) in &virtual_.reals {
            let forward = match settings.forward {
                Forward::Gate => "-g",
                Forward::Masq => "-m",
                _ => "-i",
            };
            let (weight, upper, lower) =
                (settings.weight, settings.upper_threshold, settings.lower_threshold);
            lines.push(format!("R\t{key}\t{real}\t{forward} {weight} {upper} {lower}"));
        }
    }
    // As the stub sorts: by virtual, then by server.
    lines.sort_by_key(|line| {
        let mut parts = line.split('\t');
        let kind = parts.next().unwrap_or("").to_owned();
        let key = parts.next().unwrap_or("").to_owned();
        (key, kind != "V", parts.next().unwrap_or("").to_owned())
    });
    lines.iter().fold(String::new(), |mut text, line| {
        let _ = writeln!(text, "{line}");
        text
    })
}

fn settings(settings: &VirtualSettings) -> String {
    let scheduler = settings.scheduler.name();
    let (timeout, mask) = match &settings.persistence {
        None => (0, "-".to_owned()),
        Some(persistence) => {
            use smtp_director::model::Granularity::{V4, V6};
            let mask = match persistence.granularity {
                V4(mask) if mask.is_broadcast() => "-".to_owned(),
                V4(mask) => mask.to_string(),
                V6(128) => "-".to_owned(),
                V6(prefix) => prefix.to_string(),
            };
            (persistence.timeout, mask)
        }
    };
    let has = |flag| settings.flags.has(flag);
    let flags: Vec<String> = [(SchedulerFlags::FALLBACK, "fallback"), (SchedulerFlags::PORT, "port")]
        .into_iter()
        .filter(|(flag, _)| has(*flag))
        .map(|(_, word)| format!("{scheduler}-{word}"))
        .collect();
    let flags = if flags.is_empty() { "-".to_owned() } else { flags.join(",") };
    let one = if settings.one_packet { "ops" } else { "-" };
    format!("{scheduler} {timeout} {mask} {flags} {one}")
}
