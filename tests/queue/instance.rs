//! A private Postfix with a queue: takes mail on loopback and does with it what its transport says.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use loadgen::message::Message;
use loadgen::session::send;

use super::{LIMIT, wait_until};

/// A running instance, which stops and leaves nothing behind when it is dropped.
pub(super) struct Instance {
    folder: PathBuf,
    pub(super) smtp: SocketAddr,
}

/// Delivered at once, to nowhere.
pub(super) const DISCARD: &str = "default_transport = discard:\n";
/// Deferred at once: nobody listens there.
pub(super) const LATER: &str = "default_transport = smtp:[127.0.9.9]:9\n";

impl Instance {
    /// Starts one. `main` is more lines of main.cf, `master` of master.cf; `{smtpd}` in it is the address and port.
    pub(super) fn start(name: &str, main: &str, master: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("queue-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("etc")).unwrap();
        fs::create_dir_all(folder.join("queue")).unwrap();
        let data = folder.join("data");
        let made = Command::new("install").args(["-d", "-m", "700", "-o", "postfix"]).arg(&data).status();
        assert!(made.unwrap().success(), "needs root, and the user postfix");
        let smtp = super::free_port(1);
        let path = folder.display();
        let main = format!(
            "compatibility_level = 3.6\n\
             queue_directory = {path}/queue\n\
             data_directory = {path}/data\n\
             maillog_file = {path}/log\n\
             maillog_file_prefixes = {path}\n\
             myhostname = mail.example.com\n\
             mydestination =\n\
             mynetworks = 127.0.0.0/8\n\
             inet_protocols = ipv4\n\
             inet_interfaces = 127.0.0.1\n\
             smtpd_peername_lookup = no\n\
             smtpd_client_connection_count_limit = 0\n\
             local_recipient_maps =\n\
             alias_maps =\n\
             {main}"
        );
        let smtpd = if master.contains("{smtpd}") { "" } else { "{smtpd} inet n - n - - smtpd\n" };
        let master = format!(
            "{smtpd}{master}\
             pickup unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             anvil unix - - n - 1 anvil\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             rewrite unix - - n - - trivial-rewrite\n\
             discard unix - - n - - discard\n\
             retry unix - - n - - error\n\
             smtp unix - - n - - smtp\n\
             showq unix n - n - - showq\n\
             postlog unix-dgram n - n - 1 postlogd\n"
        )
        .replace("{smtpd}", &smtp.to_string());
        fs::write(folder.join("etc/main.cf"), main).unwrap();
        fs::write(folder.join("etc/master.cf"), master).unwrap();
        let instance = Self { folder, smtp };
        assert!(instance.command("start"), "Postfix does not start: {}", instance.log());
        instance
    }

    pub(super) fn config(&self) -> PathBuf {
        self.folder.join("etc")
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.folder.join("queue")
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn command(&self, command: &str) -> bool {
        let out = Command::new("/usr/sbin/postfix").arg("-c").arg(self.config()).arg(command).output();
        out.is_ok_and(|out| out.status.success())
    }

    /// Runs one of Postfix's commands on this instance.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> String {
        let out = Command::new(program).arg("-c").arg(self.config()).args(arguments).output().unwrap();
        assert!(out.status.success(), "{program}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Sends so many messages, which all are accepted.
    pub(super) async fn send(&self, count: usize) {
        for number in 0..count {
            let (from, to) = ("a@client.example".to_owned(), "b@farm.example".to_owned());
            let message = Message { id: number.to_string(), from, to, body: b"text".to_vec() };
            send(self.smtp, &message, LIMIT).await.unwrap_or_else(|error| panic!("{error}: {}", self.log()));
        }
    }

    /// Waits until so many messages are in a queue.
    pub(super) fn await_queue(&self, queue: &str, count: usize) {
        wait_until(LIMIT, &format!("{count} messages in {queue}"), || {
            fn files(folder: &Path) -> usize {
                let entries = fs::read_dir(folder).map(|entries| entries.flatten().collect::<Vec<_>>());
                let count = |path: PathBuf| if path.is_dir() { files(&path) } else { 1 };
                entries.unwrap_or_default().into_iter().map(|entry| count(entry.path())).sum()
            }
            files(&self.spool().join(queue)) == count
        });
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Kills the processes of this instance only.
        self.command("abort");
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}
