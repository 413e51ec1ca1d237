//! EDGE: the commands `plan`, `up`, `down` and `status`: what is asked for, what is said, how it ends.
//!
//! Owns their arguments and what they print. Refuses to decide: `plan` does. Exit codes are those of `sysexits.h`, but
//! `status`, which ends with 1 where something is wrong.

use std::fmt::Display;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::apply;
use super::change::shown;
use super::findings::{self, Finding, Level};
use super::look::look;
use super::mail::look::look as look_at;
use super::mail::{Instance, edit, findings as of_mail, settings};
use super::persist::{Manager, detect, disk, texts};
use super::plan::{Plan, Step, plan};
use super::store::{Refused, Store, peek};
use super::wish::{Forward, Wish, parse_vip};
use crate::cli::Exit;

/// What is asked for, by arguments or by a file.
#[derive(Debug, clap::Args)]
pub(crate) struct What {
    /// How packets come from the director: as they are (direct routing), in a tunnel, or rewritten (NAT).
    #[arg(long, value_enum)]
    forward: Option<Forward>,
    /// A virtual address of the farm; may be repeated.
    #[arg(long, value_name = "ADDRESS", value_parser = parse_vip)]
    vip: Vec<IpAddr>,
    /// A dummy interface for the VIPs, instead of lo.
    #[arg(long, value_name = "NAME")]
    dummy: Option<String>,
    /// The address of a director as this box sees it; may be repeated.
    #[arg(long, value_name = "ADDRESS")]
    director: Vec<IpAddr>,
    /// The director forwards connections itself and says the client's address in a PROXY header.
    #[arg(long)]
    proxy_protocol: bool,
    /// Configuration directory of a Postfix instance; may be repeated.
    #[arg(short, long = "config", value_name = "DIRECTORY", default_value = "/etc/postfix")]
    config: Vec<PathBuf>,
    /// All instances that `postmulti -l` shows as enabled.
    #[arg(long, conflicts_with = "config")]
    multi: bool,
    /// Do what Postfix needs too, by `postconf` and a reload or restart; it is only said without this.
    #[arg(long)]
    postfix: bool,
    /// Say nothing of Postfix.
    #[arg(long, conflicts_with = "postfix")]
    no_postfix: bool,
    /// All this from a file; arguments come before it.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Where it is written down what was changed.
    #[arg(long, value_name = "DIRECTORY", default_value = "/var/lib/smtp-realserver")]
    state: PathBuf,
}

/// The same in TOML.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    forward: Option<Forward>,
    #[serde(default)]
    vip: Vec<IpAddr>,
    dummy: Option<String>,
    #[serde(default)]
    director: Vec<IpAddr>,
    #[serde(default)]
    config: Vec<PathBuf>,
    #[serde(default)]
    multi: bool,
    #[serde(default)]
    postfix: bool,
    #[serde(default)]
    proxy_protocol: bool,
}

/// Most bytes of a file.
const MOST_FILE: u64 = 1 << 20;

/// What wants to be done.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Say what `up` would do to make this box a real server; change nothing.
    Plan(What),
    /// Make this box a real server: settings of ARP, the VIP, the tunnel.
    Up {
        #[command(flatten)]
        what: What,
        /// Print the commands, and run none.
        #[arg(long)]
        dry_run: bool,
    },
    /// Undo what `up` did, of these VIPs or of all.
    Down {
        #[command(flatten)]
        what: What,
        /// Print the commands, and run none.
        #[arg(long)]
        dry_run: bool,
    },
    /// Say what is wrong with this box as a real server; exit code 0 where nothing is, else 1.
    Status {
        #[command(flatten)]
        what: What,
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Write the files by which this box is a real server again after a boot; of what is set up, or of what is asked for.
    Persist {
        #[command(flatten)]
        what: What,
        /// Who configures the network of this box; looked for without this.
        #[arg(long, value_enum)]
        with: Option<Manager>,
        /// Remove those files.
        #[arg(long)]
        remove: bool,
        /// Below which folder; for the image of a box.
        #[arg(long, value_name = "DIRECTORY", default_value = "/")]
        root: PathBuf,
        /// Print the files, and write none.
        #[arg(long)]
        dry_run: bool,
    },
}

/// Does it.
pub(crate) fn main(command: Command) -> Result<(), Exit> {
    match command {
        Command::Plan(what) => show_plan(&what.complete()?),
        Command::Up { what, dry_run } => up(&what.complete()?, dry_run),
        Command::Down { what, dry_run } => down(&what.complete()?, dry_run),
        Command::Status { what, json } => status(&what.complete()?, json),
        Command::Persist { remove: true, root, .. } => forget(&root),
        Command::Persist { what, with, root, dry_run, .. } => {
            persist(&what.complete()?, with, &root, dry_run)
        }
    }
}

impl What {
    /// These arguments, with what the file adds.
    fn complete(mut self) -> Result<Self, Exit> {
        let Some(path) = &self.file else { return Ok(self) };
        let asked = read(path)?;
        self.forward = self.forward.or(asked.forward);
        self.dummy = self.dummy.or(asked.dummy);
        let fill = |own: &mut Vec<IpAddr>, file| {
            if own.is_empty() {
                *own = file;
            }
        };
        fill(&mut self.vip, asked.vip);
        fill(&mut self.director, asked.director);
        if !asked.config.is_empty() {
            self.config = asked.config;
        }
        self.multi |= asked.multi;
        self.postfix |= asked.postfix && !self.no_postfix;
        self.proxy_protocol |= asked.proxy_protocol;
        Ok(self)
    }

    /// One wish of arguments and file; `None` where they name no VIP.
    fn wish(&self) -> Result<Option<Wish>, Exit> {
        let vips = self.vip.clone();
        let Some(forward) = self.forward.filter(|_| !vips.is_empty()) else {
            return if vips.is_empty() {
                Ok(None)
            } else {
                Err(Exit::usage("--forward gate, ipip or masq is missing"))
            };
        };
        let wish = Wish { forward, vips, dummy: self.dummy.clone(), directors: self.director.clone() };
        wish.check().map(Some).map_err(Exit::usage)
    }

    /// What was asked for, or what was set up here before.
    fn wishes(&self) -> Result<Vec<Wish>, Exit> {
        if let Some(wish) = self.wish()? {
            return Ok(vec![wish]);
        }
        let directors = &self.director;
        let recorded = peek(&self.state).map_err(|why| Exit::new(Exit::CONFIG, why))?.wishes();
        if recorded.is_empty() {
            return Err(Exit::usage("nothing is set up here; --forward and --vip say what is to be"));
        }
        Ok(recorded.into_iter().map(|wish| Wish { directors: directors.clone(), ..wish }).collect())
    }

    fn required(&self) -> Result<Wish, Exit> {
        self.wish()?.ok_or_else(|| Exit::usage("no VIP is given: --vip ADDRESS"))
    }

    /// The instances of Postfix, each by its look or by why there is none.
    fn instances(&self, wish: &Wish) -> Result<Vec<Instance>, String> {
        let directories = if self.multi { crate::conf::instances()? } else { self.config.clone() };
        directories.iter().map(|directory| look_at(directory, &wish.vips, &wish.directors)).collect()
    }

    /// What Postfix lacks, for those who did not ask to have it done.
    fn say_of_postfix(&self, wish: &Wish) -> Result<(), Exit> {
        if self.no_postfix || self.postfix {
            return Ok(());
        }
        match self.instances(wish) {
            Err(why) => say(format_args!("note: of Postfix nothing is known: {why}")),
            Ok(instances) => {
                for instance in &instances {
                    for setting in settings(wish, self.proxy_protocol, instance) {
                        let words = edit::postconf(&instance.directory, setting.file, &[setting.text]);
                        say(format_args!("note: Postfix lacks, and --postfix does: {}", shown(&words)))?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The steps that Postfix needs, where that is asked for. `scratch` is for copies of its files.
    fn postfix_steps(&self, wish: &Wish, scratch: &Path) -> Result<Vec<Step>, Exit> {
        if !self.postfix {
            return Ok(Vec::new());
        }
        let unavailable = |why: String| Exit::new(Exit::UNAVAILABLE, format!("nothing is done: {why}"));
        let mut steps = Vec::new();
        for instance in self.instances(wish).map_err(unavailable)? {
            let missing = settings(wish, self.proxy_protocol, &instance);
            for change in edit::prepare(&instance, &missing, scratch).map_err(unavailable)? {
                steps.push(Step {
                    change,
                    needs: wish.vips.iter().copied().collect(),
                    so: false,
                    wrong: "Postfix is not ready for the farm".to_owned(),
                    effect: "see status".to_owned(),
                });
            }
        }
        Ok(steps)
    }

    fn store(&self) -> Result<Store, Exit> {
        if !rustix::process::geteuid().is_root() {
            return Err(Exit::new(Exit::PERMISSION, "needs root"));
        }
        Store::open(&self.state).map_err(|refused| match refused {
            Refused::Busy => Exit::new(Exit::TEMPORARY, "another smtp-realserver is at work; try again"),
            Refused::Io(why) => {
                Exit::new(Exit::OS, format!("no record can be kept, so nothing is done: {why}"))
            }
        })
    }
}

fn read(path: &Path) -> Result<Asked, Exit> {
    use std::io::Read as _;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_FILE).read_to_string(&mut text));
    read.map_err(|error| Exit::new(Exit::CONFIG, format!("{}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Exit::new(Exit::CONFIG, format!("{}: {error}", path.display())))
}

fn observe() -> Result<super::observed::Observed, Exit> {
    look().map_err(|why| Exit::new(Exit::UNAVAILABLE, why))
}

fn say(text: impl Display) -> Result<(), Exit> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Problems of the box end a command before it does anything.
fn refuse(plan: &Plan) -> Result<(), Exit> {
    if plan.problems.is_empty() {
        return Ok(());
    }
    let lines = plan
        .problems
        .iter()
        .map(|problem| format!("{}: {}\n  $ {}", problem.wrong, problem.effect, problem.mend));
    Err(Exit::new(Exit::CONFIG, format!("nothing is done.\n{}", lines.collect::<Vec<_>>().join("\n"))))
}

fn show_plan(what: &What) -> Result<(), Exit> {
    let wish = what.required()?;
    let observed = observe()?;
    let plan = plan(&wish, &observed);
    for step in &plan.steps {
        let commands: Vec<_> = step.change.commands().iter().map(|words| shown(words)).collect();
        if step.so {
            say(format_args!("  so already   {}", commands.join("; ")))?;
        } else {
            say(format_args!("+ {}\n    because {}: {}", commands.join("; "), step.wrong, step.effect))?;
        }
    }
    for note in &plan.notes {
        say(format_args!("note: {note}"))?;
    }
    what.say_of_postfix(&wish)?;
    refuse(&plan)
}

fn up(what: &What, dry_run: bool) -> Result<(), Exit> {
    let wish = what.required()?;
    let store = if dry_run { None } else { Some(what.store()?) };
    let record = peek(&what.state).map_err(|why| Exit::new(Exit::CONFIG, why))?;
    if let Some((vip, way)) = record.contradicts(&wish) {
        let place = way.dummy.as_deref().map(|name| format!(" --dummy {name}")).unwrap_or_default();
        let why = format!(
            "{vip} is set up with --forward {}{place}; first: smtp-realserver down --vip {vip} --forward {}",
            way.forward, way.forward
        );
        return Err(Exit::new(Exit::CONFIG, why));
    }
    let mut plan = plan(&wish, &observe()?);
    refuse(&plan)?;
    let steps = if store.is_some() || !what.postfix {
        what.postfix_steps(&wish, &what.state)
    } else {
        let scratch = edit::scratch().map_err(|why| Exit::new(Exit::OS, why))?;
        let steps = what.postfix_steps(&wish, &scratch);
        let _ = std::fs::remove_dir_all(&scratch);
        steps
    };
    plan.steps.extend(steps?);
    let missing = plan.steps.iter().filter(|step| !step.so).count();
    let Some(store) = store else {
        for step in plan.steps.iter().filter(|step| !step.so) {
            for words in step.change.commands() {
                say(shown(&words))?;
            }
        }
        return Ok(());
    };
    let mut tell = |line: &str| drop(say(line));
    apply::up(&store, &wish, &plan.steps, &mut tell)
        .map_err(|failure| failed(&failure, "nothing of it is left"))?;
    for note in &plan.notes {
        say(format_args!("note: {note}"))?;
    }
    what.say_of_postfix(&wish)?;
    let vips: Vec<_> = wish.vips.iter().map(ToString::to_string).collect();
    let done = if missing == 0 { "was so already" } else { "is set up" };
    say(format_args!("{}: {done}, forward {}", vips.join(", "), wish.forward))
}

fn down(what: &What, dry_run: bool) -> Result<(), Exit> {
    let asked = Some(what.vip.clone()).filter(|vips| !vips.is_empty());
    let store = if dry_run { None } else { Some(what.store()?) };
    let mut record = peek(&what.state).map_err(|why| Exit::new(Exit::CONFIG, why))?;
    let known = record.vips();
    if known.is_empty() && asked.is_none() && record.is_empty() {
        return say("nothing is set up here");
    }
    let vips = asked.unwrap_or_else(|| known.clone());
    for vip in vips.iter().filter(|vip| !known.contains(vip)) {
        say(format_args!("{vip}: was not set up here, nothing to undo"))?;
    }
    let Some(store) = store else {
        for change in record.release(&vips) {
            for words in change.undo_commands() {
                say(shown(&words))?;
            }
        }
        return Ok(());
    };
    let mut tell = |line: &str| drop(say(line));
    apply::down(&store, &mut record, &vips, &mut tell)
        .map_err(|failure| failed(&failure, "the rest is undone"))?;
    for vip in vips.iter().filter(|vip| known.contains(vip)) {
        say(format_args!("{vip}: is undone"))?;
    }
    Ok(())
}

fn failed(failure: &apply::Failure, otherwise: &str) -> Exit {
    let code = if failure.denied { Exit::PERMISSION } else { Exit::OS };
    let rest = if failure.left.is_empty() {
        otherwise.to_owned()
    } else {
        format!(
            "still there, and in the record: {}\nsmtp-realserver down tries again",
            failure.left.join("; ")
        )
    };
    Exit::new(code, format!("{}\n{rest}", failure.what))
}

fn status(what: &What, json: bool) -> Result<(), Exit> {
    let observed = observe()?;
    let mut found: Vec<Finding> = Vec::new();
    for wish in what.wishes()? {
        found.extend(findings::network(&wish, &observed, &plan(&wish, &observed)));
        if what.no_postfix {
            continue;
        }
        match what.instances(&wish) {
            Ok(instances) => {
                found.extend(instances.iter().flat_map(|of| of_mail(&wish, what.proxy_protocol, of)));
            }
            Err(why) => found.push(Finding::wrong(
                format!("Postfix cannot be asked: {why}"),
                "whether it takes the mail that the director sends here is not known",
                "postfix check",
            )),
        }
    }
    found.sort_by_key(|finding| finding.level == Level::Advice);
    let right = found.iter().all(|finding| finding.level == Level::Advice);
    if json {
        say(serde_json::json!({ "version": 1, "right": right, "findings": found }))?;
    } else {
        let mut out = std::io::stdout().lock();
        out.write_all(findings::render(&found).as_bytes())?;
        if right {
            writeln!(out, "right")?;
        }
        out.flush()?;
    }
    if right { Ok(()) } else { Err(Exit::new(Exit::WRONG, "")) }
}

/// Several ways of forwarding at once would be files over files.
fn persist(what: &What, with: Option<Manager>, root: &Path, dry_run: bool) -> Result<(), Exit> {
    let wishes = what.wishes()?;
    let [wish] = wishes.as_slice() else {
        return Err(Exit::usage(
            "the VIPs here are set up in several ways: say which by --forward and --vip",
        ));
    };
    let traces = disk::traces(root);
    let (manager, why) = match with {
        Some(manager) => (manager, "it was asked for"),
        None => detect(traces).map_err(|why| Exit::new(Exit::CONFIG, why))?,
    };
    let name = clap::ValueEnum::to_possible_value(&manager).map(|value| value.get_name().to_owned());
    say(format_args!("# for {}: {why}", name.unwrap_or_default()))?;
    if matches!(manager, Manager::Ifupdown | Manager::IfupdownAlias) && !traces.interfaces_d {
        let why =
            "/etc/network/interfaces does not read interfaces.d: add \"source /etc/network/interfaces.d/*\"";
        return Err(Exit::new(Exit::CONFIG, why));
    }
    let texts = texts(wish, manager).map_err(|why| Exit::new(Exit::CONFIG, why))?;
    if dry_run {
        return texts.iter().try_for_each(|text| say(format_args!("# {}\n{}", text.path, text.text)));
    }
    let done = disk::write(root, &texts).map_err(|why| Exit::new(Exit::OS, why))?;
    done.iter().try_for_each(say)?;
    say(if done.is_empty() { "was so already" } else { "takes effect at the next boot; up does it now" })
}

fn forget(root: &Path) -> Result<(), Exit> {
    let done = disk::remove(root).map_err(|why| Exit::new(Exit::OS, why))?;
    done.iter().try_for_each(say)?;
    if done.is_empty() { say("there is no file of ours") } else { Ok(()) }
}
