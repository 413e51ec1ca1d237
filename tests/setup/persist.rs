//! The files of `persist`, read by the programs that they are for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::expected;
use crate::queue::program;
use crate::scratch::Folder;

const GATE: &str = "--forward gate --vip 10.99.0.100 --vip 10.99.0.101 --vip fd00:99::64";

/// The image of a box.
struct Image(Folder);

impl Image {
    fn new(name: &str) -> Self {
        let image = Self(Folder::new(&format!("persist-{name}")));
        fs::create_dir_all(image.path("etc/network/interfaces.d")).unwrap();
        image
    }

    fn with_ifupdown(name: &str) -> Self {
        let image = Self::new(name);
        let text = format!(
            "auto lo\niface lo inet loopback\nsource {}/*\n",
            image.path("etc/network/interfaces.d").display()
        );
        fs::write(image.path("etc/network/interfaces"), text).unwrap();
        image
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn run(&self, code: i32, arguments: &str) -> String {
        let output = Command::new(program())
            .args(arguments.split_whitespace())
            .arg("--root")
            .arg(self.0.path())
            .args(["--state", "/nonexistent"])
            .output()
            .unwrap();
        expected(&output, code, arguments)
    }

    /// All files, by their path.
    fn files(&self) -> Vec<String> {
        let mut all = std::collections::BTreeMap::new();
        super::files(self.0.path(), &mut all);
        all.into_iter().map(|(path, text)| format!("{path}\n{text}")).collect()
    }

    /// Writes, has it judged, writes again, removes.
    fn there_and_back(&self, arguments: &str, judge: impl FnOnce(&Self)) {
        let before = self.files();
        let said = self.run(0, &format!("persist {arguments}"));
        assert!(said.contains("wrote"), "{said}");
        assert!(self.files().len() > before.len());
        judge(self);
        assert!(self.run(0, &format!("persist {arguments}")).contains("was so already"));
        self.run(0, "persist --remove");
        assert_eq!(self.files(), before);
        assert!(self.run(0, "persist --remove").contains("no file of ours"));
    }
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output =
        Command::new(program).args(arguments).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    expected(&output, 0, program)
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
#[ignore = "needs root: tests/run"]
fn ifupdown_reads_both_forms() {
    let ifup = |image: &Image| {
        let interfaces = image.path("etc/network/interfaces");
        output("ifup", &["--no-act", "--verbose", "--all", "--force", "-i", interfaces.to_str().unwrap()])
    };
    Image::with_ifupdown("ifupdown").there_and_back(GATE, |image| {
        let said = ifup(image);
        for words in [
            "10.99.0.100/255.255.255.255",
            "10.99.0.101/255.255.255.255",
            "fd00:99::64",
            "sysctl -q -p /etc/sysctl.d/60-smtp-realserver.conf",
        ] {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert!(said.find("sysctl -q").unwrap() < said.find("10.99.0.100").unwrap(), "{said}");
    });
    let alias = "--forward gate --vip 10.99.0.100 --with ifupdown-alias";
    Image::with_ifupdown("alias").there_and_back(alias, |image| {
        let said = ifup(image);
        assert!(said.contains("lo:0") && said.contains("10.99.0.100"), "{said}");
    });
    let tunnel = "--forward ipip --vip 10.99.0.100";
    Image::with_ifupdown("tunnel").there_and_back(tunnel, |image| {
        assert!(ifup(image).contains("tunl0"));
        assert!(text(&image.path("etc/modules-load.d/smtp-realserver.conf")).ends_with("\nipip\n"));
    });
    Image::with_ifupdown("dummy").there_and_back("--forward gate --vip 10.99.0.100 --dummy mail0", |image| {
        assert!(ifup(image).contains("ip link add mail0 type dummy"));
    });
}

#[test]
#[ignore = "needs root: tests/run"]
fn netplan_reads_its_file() {
    let image = Image::new("netplan");
    fs::create_dir_all(image.path("etc/netplan")).unwrap();
    fs::write(image.path("etc/netplan/01-net.yaml"), "network:\n  version: 2\n  renderer: networkd\n")
        .unwrap();
    image.there_and_back(GATE, |image| {
        let root = image.0.path().to_str().unwrap().to_owned();
        output("netplan", &["generate", "--root-dir", &root]);
        let made = text(&image.path("run/systemd/network/10-netplan-lo.network"));
        for words in
            ["Name=lo", "Address=10.99.0.100/32", "Address=10.99.0.101/32", "Address=fd00:99::64/128"]
        {
            assert!(made.contains(words), "{words}: {made}");
        }
        fs::remove_dir_all(image.path("run")).unwrap();
    });
}

#[test]
#[ignore = "needs root: tests/run"]
fn network_manager_reads_its_file() {
    for (name, more) in [("nm", ""), ("nm-dummy", " --dummy mail0")] {
        let image = Image::new(name);
        fs::create_dir_all(image.path("run/NetworkManager")).unwrap();
        image.there_and_back(&format!("{GATE}{more}"), |image| {
            let file = image.path("etc/NetworkManager/system-connections/smtp-realserver.nmconnection");
            let output = Command::new("nmcli")
                .args(["--offline", "connection", "modify", "connection.autoconnect-priority", "1"])
                .stdin(fs::File::open(&file).unwrap())
                .output()
                .unwrap();
            let said = expected(&output, 0, "nmcli");
            for words in ["address1=10.99.0.100/32", "address2=10.99.0.101/32", "address1=fd00:99::64/128"] {
                assert!(said.contains(words), "{words}: {said}");
            }
        });
    }
}

/// networkd itself, in a network of its own, with the files in the place of the machine's.
#[test]
#[ignore = "needs root: tests/run"]
fn networkd_has_no_complaint_of_its_files() {
    for (name, more) in [("networkd", ""), ("networkd-dummy", " --dummy mail0")] {
        let image = Image::new(name);
        image.there_and_back(&format!("{GATE}{more} --with networkd"), |image| {
            let folder = image.path("etc/systemd/network");
            // With a read-only /sys it waits for no udev, as in a container.
            let script = "mount --bind \"$0\" /etc/systemd/network && ip link set lo up && mount -t tmpfs tmpfs /run && \
                mount --bind /sys /sys && mount -o remount,ro,bind /sys && \
                SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=debug timeout 4 /lib/systemd/systemd-networkd 2>&1; \
                ip -brief address";
            let said = output("unshare", &["-m", "-n", "sh", "-c", script, folder.to_str().unwrap()]);
            let complaints: Vec<_> = said
                .lines()
                .filter(|line| line.contains("10-smtp-realserver"))
                .filter(|line| ["nknown", "nvalid", "gnoring", "ailed"].iter().any(|word| line.contains(word)))
                .collect();
            assert!(complaints.is_empty(), "{complaints:?}");
            // The kernel of the test may have no dummy interfaces.
            let last = said.lines().last().unwrap_or_default();
            for vip in ["10.99.0.100/32", "10.99.0.101/32", "fd00:99::64/128"].iter().filter(|_| more.is_empty()) {
                assert!(last.contains(vip), "{vip}: {said}");
            }
        });
    }
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_file_that_is_not_ours_is_never_touched() {
    let image = Image::with_ifupdown("foreign");
    let file = image.path("etc/network/interfaces.d/smtp-realserver");
    fs::write(&file, "# mine\n").unwrap();
    let before = image.files();
    assert!(image.run(71, &format!("persist {GATE}")).contains("not ours: nothing is written"));
    image.run(0, "persist --remove");
    assert_eq!(image.files(), before);
    fs::remove_file(&file).unwrap();

    image.run(0, &format!("persist {GATE}"));
    fs::write(&file, text(&file) + "# a line of the administrator's\n").unwrap();
    let before = image.files();
    assert!(image.run(71, "persist --forward gate --vip 10.99.0.100").contains("changed by hand"));
    assert_eq!(image.files(), before);
    assert!(image.run(0, "persist --remove").contains("changed by hand: left alone"));
    assert!(text(&file).contains("administrator"));
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_box_whose_manager_is_not_known_is_told_so() {
    let image = Image::new("unknown");
    let said = image.run(78, &format!("persist {GATE}"));
    assert!(said.contains("not known") && said.contains("--with"), "{said}");
    assert!(image.run(78, "persist --forward ipip --vip 10.99.0.100 --with netplan").contains("networkd"));
    assert_eq!(image.files(), Vec::<String>::new());
}
