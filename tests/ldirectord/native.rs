//! Ours, on the memory dataplane, as `plan` goes about it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::time::Instant;

use smtp_director::config::Config;
use smtp_director::config::load::load;
use smtp_director::dataplane::Dataplane as _;
use smtp_director::dataplane::memory::Memory;
use smtp_director::director::Event;
use smtp_director::maintenance;
use smtp_director::model::{
    Family, Forward, Op, Protocol, RealSettings, SchedulerFlags, Table, VirtualId, VirtualSettings, Weight,
};
use smtp_director::reconcile::diff;
use smtp_director::state::{Finding, Maintained, State};
use tokio::sync::{mpsc, watch};

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
    pub(super) fn table(&self) -> Table {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut state = State::new(self.config.clone());
            let plans: Vec<_> = state.checks().cloned().collect();
            for plan in plans {
                let outcome = checks::run(&plan.spec).await;
                #[expect(clippy::disallowed_methods, reason = "when the answer came")]
                let now = Instant::now();
                let finding = Finding::of_one(now, &plan.verdicts, outcome);
                state.absorb(&plan, finding);
            }
            if let Some(folder) = &self.config.maintenance_dir {
                state.maintain(maintained(folder).await);
            }
            let mut memory = Memory::default();
            let dump = memory.dump().await.unwrap();
            #[expect(clippy::disallowed_methods, reason = "nothing has begun to drain before now")]
            let desired = state.desired(Instant::now(), &dump);
            for op in diff(&dump.table, &desired, &state.owned()) {
                memory.apply(&op).await.unwrap();
            }
            memory.table
        })
    }

    /// Ours, but for what the original is known to make of a server that it gives weight 0: its thresholds are gone.
    pub(super) fn table_of_the_original(&self) -> String {
        let mut table = self.table();
        for config in self.config.virtuals.iter().filter(|config| config.quiescent) {
            let Some(have) = table.virtuals.get_mut(&config.id) else { continue };
            for real in &config.reals {
                if let Some(settings) = have.reals.get_mut(&real.id)
                    && settings.weight == Weight(0)
                    && (real.settings.weight != Weight(0) || self.config.readd_quiescent)
                {
                    (settings.upper_threshold, settings.lower_threshold) = (0, 0);
                }
            }
        }
        show(&table)
    }
}

/// Who is in maintenance by the files of a folder.
async fn maintained(folder: &Path) -> BTreeSet<Maintained> {
    // Where there is nothing to tell, nothing is told: a file of ours ends the waiting.
    if fs::write(folder.join("198.51.100.98"), "").is_err() {
        return BTreeSet::new();
    }
    let (_directory, watched) = watch::channel(Some(folder.to_owned()));
    let (tell, mut told) = mpsc::channel(1);
    let watching = tokio::spawn(maintenance::watch(watched, tell));
    let Some(Event::Maintenance(found)) = told.recv().await else { panic!("nothing was told") };
    watching.abort();
    found
}

/// A change in the form in which the recording ipvsadm writes it down.
pub(super) fn show_op(op: &Op) -> String {
    let at = key(op.virtual_id());
    match op {
        Op::AddVirtual(_, settings) => format!("+V\t{at}\t{}", show_virtual(settings)),
        Op::SetVirtual(_, settings) => format!("~V\t{at}\t{}", show_virtual(settings)),
        Op::DeleteVirtual(_) => format!("-V\t{at}"),
        Op::AddReal(_, real, settings) => format!("+R\t{at}\t{real}\t{}", show_real(*settings)),
        Op::SetReal(_, real, settings) => format!("~R\t{at}\t{real}\t{}", show_real(*settings)),
        Op::DeleteReal(_, real) => format!("-R\t{at}\t{real}"),
    }
}

fn key(id: &VirtualId) -> String {
    match id {
        VirtualId::Address { protocol: Protocol::Tcp, address } => format!("-t {address}"),
        VirtualId::Address { protocol: Protocol::Udp, address } => format!("-u {address}"),
        VirtualId::Fwmark { mark, family: Family::V4 } => format!("-f {mark}"),
        VirtualId::Fwmark { mark, family: Family::V6 } => format!("-f {mark} -6"),
    }
}

fn show_real(settings: RealSettings) -> String {
    let forward = match settings.forward {
        Forward::Gate => "-g",
        Forward::Masq => "-m",
        _ => "-i",
    };
    let RealSettings { weight, upper_threshold, lower_threshold, .. } = settings;
    format!("{forward} {weight} {upper_threshold} {lower_threshold}")
}

/// The table in the form in which the recording ipvsadm keeps it.
pub(super) fn show(table: &Table) -> String {
    let mut lines = Vec::new();
    for (id, virtual_) in &table.virtuals {
        let key = key(id);
        lines.push(format!("V\t{key}\t{}", show_virtual(&virtual_.settings)));
        for (real, settings) in &virtual_.reals {
            lines.push(format!("R\t{key}\t{real}\t{}", show_real(*settings)));
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

fn show_virtual(settings: &VirtualSettings) -> String {
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
