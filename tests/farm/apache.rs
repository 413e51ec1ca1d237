//! One real Apache on one host of the farm, with nothing shared with the machine's own.
//!
//! Owns its folder, its page, its access log and the group of its processes. Refuses to know who asks it.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};

use super::host::{Host, wait_until};

const PROGRAM: &str = "/usr/sbin/apache2";
/// The site that has the page; who asks for another host gets another one.
pub(crate) const SITE: &str = "www.esempio.com";
const PATIENCE: Duration = Duration::from_secs(20);

/// An Apache on port 80.
pub(crate) struct Apache {
    host: Host,
    folder: PathBuf,
    running: Option<Child>,
}

impl Apache {
    /// Its files, below `farm`, with this text as its page; it is started.
    pub(crate) fn start(host: &Host, farm: &Path, text: &str) -> Self {
        let mut apache =
            Self { host: host.again(), folder: farm.join(format!("apache-{}", host.name)), running: None };
        for folder in ["", "site", "other"] {
            fs::create_dir_all(apache.folder.join(folder)).expect("a folder");
        }
        fs::write(apache.folder.join("conf"), apache.conf()).expect("conf");
        fs::write(apache.folder.join("other/index.html"), "of another host\n").expect("a page");
        apache.write(text);
        apache.launch();
        apache
    }

    /// Another text on its page.
    pub(crate) fn write(&self, text: &str) {
        fs::write(self.folder.join("site/index.html"), text).expect("a page");
    }

    /// Starts it again, and waits until it answers.
    pub(crate) fn launch(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let child = self.host.inside(|| {
            Command::new(PROGRAM)
                .arg("-f")
                .arg(self.folder.join("conf"))
                .arg("-DFOREGROUND")
                .process_group(0)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap_or_else(|error| panic!("{PROGRAM}: {error}"))
        });
        self.running = Some(child);
        let own = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
        let error = || fs::read_to_string(self.folder.join("error")).unwrap_or_default();
        wait_until(PATIENCE, "Apache answers", || {
            let page = get(&self.host, own, "/index.html");
            page.is_ok_and(|page| page.contains(' ')) || error().contains("[core:emerg]")
        });
    }

    /// All its processes at once (SIGKILL).
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.running.take() else { return };
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    }

    /// How many requests of this client its access log has.
    pub(crate) fn requests_of(&self, client: &str) -> usize {
        let log = fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().filter(|line| line.split(' ').next() == Some(client)).count()
    }

    fn conf(&self) -> String {
        let folder = self.folder.display();
        let modules = "/usr/lib/apache2/modules";
        format!(
            "ServerRoot {folder}\nPidFile {folder}/pid\nErrorLog {folder}/error\nMutex file:{folder}\nDefaultRuntimeDir {folder}\n\
             User nobody\nGroup nogroup\nServerName {name}\nListen 0.0.0.0:80\nStartServers 2\nMaxRequestWorkers 8\n\
             LoadModule mpm_prefork_module {modules}/mod_mpm_prefork.so\n\
             LoadModule authz_core_module {modules}/mod_authz_core.so\n\
             LoadModule dir_module {modules}/mod_dir.so\nDirectoryIndex index.html\n\
             LogFormat \"%h %l %u %t \\\"%r\\\" %>s %O\" common\nCustomLog {folder}/access.log common\n\
             <VirtualHost *:80>\nServerName other.example\nDocumentRoot {folder}/other\n</VirtualHost>\n\
             <VirtualHost *:80>\nServerName {SITE}\nDocumentRoot {folder}/site\n</VirtualHost>\n",
            name = self.host.name,
        )
    }
}

impl Drop for Apache {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let error = fs::read_to_string(self.folder.join("error")).unwrap_or_default();
            println!("--- error log of Apache on {}\n{error}", self.host.name);
        }
    }
}

/// The answer of the site to one request on a connection of its own.
pub(crate) fn get(client: &Host, target: SocketAddr, path: &str) -> io::Result<String> {
    client.inside(|| {
        let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {SITE}\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    })
}
