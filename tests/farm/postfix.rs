//! One real Postfix on one host of the farm, with nothing shared with the machine's own.
//!
//! Owns its configuration, queue and mailbox folders, and the process group of its `master`. Refuses to know who
//! sends to it. The folders are made here and `master` is started directly: `postfix start` does the same by some
//! hundred forks, which are seconds in the guest. Each delivered message is a file in a Maildir.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::host::{Host, wait_until};

const MASTER: &str = "/usr/lib/postfix/sbin/master";
/// Who owns the delivered mail.
const NOBODY: u32 = 65534;

/// A Postfix that can be started, killed and started again.
pub(crate) struct Postfix {
    pub(crate) host: Host,
    folder: PathBuf,
    master: Option<Child>,
}

impl Postfix {
    /// Its folders, below `farm`; nothing runs yet.
    pub(crate) fn new(host: Host, farm: &Path) -> Self {
        let postfix = Self { folder: farm.join(&host.name), host, master: None };
        postfix.make_folders();
        postfix.configure("", MASTER_CF);
        postfix
    }

    /// `real1` is `real1.lab.test`: what its banner says.
    pub(crate) fn name(&self) -> &str {
        &self.host.name
    }

    /// Starts `master` and waits until port 25 answers with a banner.
    pub(crate) fn start(&mut self) {
        self.launch();
        self.await_banner();
    }

    /// Starts `master` only, so that several can come up together.
    pub(crate) fn launch(&mut self) {
        assert!(self.master.is_none(), "{} runs already", self.name());
        let etc = self.folder.join("etc");
        let master = self.host.inside(|| {
            Command::new(MASTER)
                .arg("-c")
                .arg(etc)
                .arg("-d")
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{MASTER}: {error}"))
        });
        self.master = Some(master);
    }

    /// Waits until port 25 answers with a banner.
    pub(crate) fn await_banner(&self) {
        self.host.inside(|| {
            wait_until(Duration::from_secs(30), &format!("{} takes mail", self.name()), || {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 25));
                let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) else {
                    return false;
                };
                let mut code = [0; 4];
                stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
                    && stream.read_exact(&mut code).is_ok()
                    && &code == b"220 "
            });
        });
    }

    /// Kills `master` and all its children at once (SIGKILL): connections are reset, the port is closed.
    pub(crate) fn kill(&mut self) {
        if let Some(group) = self.master_pid() {
            let _ = kill_process_group(group, Signal::KILL);
        }
        if let Some(mut master) = self.master.take() {
            let _ = master.wait();
        }
    }

    /// Adds lines to its main.cf, in the place of those that were added before, and starts it again with them.
    pub(crate) fn restart_with(&mut self, lines: &str) {
        self.configure(lines, MASTER_CF);
        self.kill();
        self.start();
    }

    /// Replaces what was added to its main.cf, and its master.cf; for the next start.
    pub(crate) fn configure(&self, lines: &str, master_cf: &str) {
        let etc = self.folder.join("etc");
        fs::write(etc.join("main.cf"), format!("{}{lines}", self.main_cf())).expect("main.cf");
        fs::write(etc.join("master.cf"), master_cf).expect("master.cf");
    }

    /// SIGHUP: reads its configuration; the port stays open, and each session goes on to its end.
    pub(crate) fn reload(&self) {
        kill_process(self.master_pid().expect("it runs"), Signal::HUP).expect("master");
    }

    /// SIGSTOP for `master` and all its children: the kernel still takes connections for them.
    pub(crate) fn freeze(&self) {
        kill_process_group(self.master_pid().expect("it runs"), Signal::STOP).expect("master");
    }

    /// SIGCONT: all goes on.
    pub(crate) fn thaw(&self) {
        kill_process_group(self.master_pid().expect("it runs"), Signal::CONT).expect("master");
    }

    fn master_pid(&self) -> Option<Pid> {
        self.master.as_ref().and_then(|master| i32::try_from(master.id()).ok()).and_then(Pid::from_raw)
    }

    /// The messages in its mailbox, each as it was delivered.
    pub(crate) fn mailbox(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.folder.join("mail/inbox/new")) else { return Vec::new() };
        entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).collect()
    }

    /// How many messages are in its mailbox.
    pub(crate) fn delivered(&self) -> usize {
        fs::read_dir(self.folder.join("mail/inbox/new")).map_or(0, Iterator::count)
    }

    /// What Postfix logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log/maillog")).unwrap_or_default()
    }

    fn make_folders(&self) {
        let (user, drop_group) = (id_of("/etc/passwd", "postfix"), id_of("/etc/group", "postdrop"));
        for folder in ["etc", "log", "mail", "data", "spool"] {
            fs::create_dir_all(self.folder.join(folder)).expect("folder");
        }
        chown(self.folder.join("mail"), Some(NOBODY), Some(NOBODY)).expect("chown mail");
        chown(self.folder.join("data"), Some(user), None).expect("chown data");
        let spool = self.folder.join("spool");
        fs::create_dir(spool.join("pid")).expect("pid");
        for queue in [
            "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private",
            "saved", "trace",
        ] {
            make_folder(&spool.join(queue), 0o700, user, None);
        }
        make_folder(&spool.join("maildrop"), 0o730, user, Some(drop_group));
        make_folder(&spool.join("public"), 0o710, user, Some(drop_group));
    }

    fn main_cf(&self) -> String {
        let folder = self.folder.display();
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {folder}/spool\n\
             data_directory = {folder}/data\n\
             maillog_file = {folder}/log/maillog\n\
             maillog_file_prefixes = {folder}/log\n\
             myhostname = {name}.lab.test\n\
             mydestination =\n\
             inet_interfaces = all\n\
             local_recipient_maps =\n\
             alias_maps =\n\
             alias_database =\n\
             mynetworks =\n\
             smtpd_relay_restrictions = reject_unauth_destination\n\
             smtpd_peername_lookup = no\n\
             smtpd_tls_security_level = none\n\
             smtpd_client_connection_count_limit = 0\n\
             virtual_mailbox_domains = lab.test\n\
             virtual_mailbox_base = {folder}/mail\n\
             virtual_mailbox_maps = static:inbox/\n\
             virtual_uid_maps = static:{NOBODY}\n\
             virtual_gid_maps = static:{NOBODY}\n",
            name = self.name(),
        )
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Only what takes and delivers mail, all outside a chroot.
pub(crate) const MASTER_CF: &str = "\
smtp inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
";

fn make_folder(path: &Path, mode: u32, user: u32, group: Option<u32>) {
    fs::create_dir(path).expect("queue folder");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("mode");
    chown(path, Some(user), group).expect("chown");
}

/// The number of a user or group, which is the third field in both files.
fn id_of(file: &str, name: &str) -> u32 {
    let text = fs::read_to_string(file).expect(file);
    let line = text.lines().find(|line| line.split(':').next() == Some(name));
    line.and_then(|line| line.split(':').nth(2)?.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {file}: install postfix"))
}
