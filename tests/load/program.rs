//! `smtp-loadgen` as its users have it: arguments in, text and an exit code out.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::sink;
use crate::scratch::Folder;

/// Built with the tests where the whole workspace is; here, where they are alone.
fn program() -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let program = here.ancestors().nth(2).unwrap().join("smtp-loadgen");
    if !program.exists() {
        let built = Command::new(env!("CARGO")).args(["build", "--locked", "-p", "loadgen"]).status();
        assert!(built.unwrap().success());
    }
    program
}

fn run(words: &str) -> Output {
    Command::new(program()).args(words.split_whitespace()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server of HTTP/1.0 that answers with so many bytes, and its URL.
fn web(sizes: &'static [usize]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/file", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (stream, size) in listener.incoming().zip(sizes.iter().cycle()) {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {size}\r\n\r\n");
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b'x'; *size]));
        }
    });
    url
}

fn closed() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn http_load_prints_line_for_line_what_the_original_does() {
    let folder = Folder::new("load-http-load");
    let urls = folder.file(web(&[1024]));
    let output = run(&format!("http_load -p 3 -f 30 {}", urls.display()));
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
    let shape = regex_like(&text(&output.stdout));
    assert_eq!(
        shape,
        "30 fetches, N max parallel, 30720 bytes, in N seconds\n1024 mean bytes/connection\n\
         N fetches/sec, N bytes/sec\nmsecs/connect: N mean, N max, N min\n\
         msecs/first-response: N mean, N max, N min\nHTTP response codes:\n  code 200 -- 30\n"
    );
    // Called by that name it is that program.
    let name = folder.path().join("http_load");
    std::os::unix::fs::symlink(program(), &name).unwrap();
    let output = Command::new(name).args(["-r", "50", "-s", "1"]).arg(&urls).output().unwrap();
    // Of 50 that are due the last may be under way when it ends, as there.
    let said = text(&output.stdout);
    let fetches: u32 = said.split(' ').next().unwrap().parse().unwrap();
    assert!((45..=50).contains(&fetches), "{said}");
}

/// With N for all numbers but those that are known.
fn regex_like(text: &str) -> String {
    let known = ["30", "30720", "1024", "200"];
    let words = text.split_inclusive([' ', '\n', ',']).map(|word| {
        let number = word.trim_end_matches([' ', '\n', ',']);
        let end = &word[number.len()..];
        if number.parse::<f64>().is_ok() && !known.contains(&number) {
            format!("N{end}")
        } else {
            word.to_owned()
        }
    });
    words.collect()
}

#[test]
fn http_load_names_each_fetch_that_failed() {
    let folder = Folder::new("load-http-load-bad");
    let (good, refused) = (web(&[10, 10, 11]), closed());
    let urls = folder.file(format!("{good}\n"));
    let output = run(&format!("http_load -p 1 -f 6 {}", urls.display()));
    assert_eq!(text(&output.stderr), format!("{good}: byte count wrong\n").repeat(2));
    assert!(text(&output.stdout).contains("\n2 bad byte counts\n"), "{}", text(&output.stdout));
    let output = run(&format!("http_load -c -p 1 -f 3 {}", urls.display()));
    assert_eq!(text(&output.stderr), format!("{good}: checksum wrong\n"));
    let urls = folder.file(format!("http://{refused}/x"));
    let output = run(&format!("http_load -p 1 -f 2 {}", urls.display()));
    let lines = format!("http://{refused}/x: Connection refused\n").repeat(2);
    assert_eq!(text(&output.stderr), lines + "smtp-loadgen: nothing could be fetched\n");
    assert_eq!(output.status.code(), Some(2), "the original says 0");
    let output = run("http_load -p 1 urls");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("One end specifier, either -fetches or -seconds, is required."));
}

#[test]
fn a_throttled_fetch_takes_as_long_as_its_bytes_on_that_line() {
    let folder = Folder::new("load-throttle");
    let urls = folder.file(web(&[30_000]));
    let begin = std::time::Instant::now();
    let output = run(&format!("http_load -T 300000 -p 1 -f 1 {}", urls.display()));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(begin.elapsed() > Duration::from_millis(950), "{:?}", begin.elapsed());
}

/// A sink of its own process, with the address that it printed.
struct Outside(Child, BufReader<std::process::ChildStdout>, String);

impl Outside {
    fn start(words: &str) -> Self {
        let mut command = Command::new(program());
        command.args(["sink", "--listen", "127.0.0.1:0"]).args(words.split_whitespace());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (mut out, mut line) = (BufReader::new(child.stdout.take().unwrap()), String::new());
        out.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self(child, out, address)
    }

    /// Ends it as a user would, and gives what it printed.
    fn end(mut self) -> (Option<i32>, String) {
        interrupt(&self.0);
        let mut rest = String::new();
        self.1.read_to_string(&mut rest).unwrap();
        (self.0.wait().unwrap().code(), rest)
    }
}

fn interrupt(child: &Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_sink_counts_what_it_took_and_shares_its_port_with_nobody() {
    let folder = Folder::new("load-sink-json");
    let json = folder.path().join("sink.json");
    let sink = Outside::start(&format!("--hostname mx7.example --starttls made --json {}", json.display()));
    let url = format!("smtp://{}", sink.2);
    let output = run(&format!("smtp {url} --sessions 2 --messages 20 --starttls required --recipients 2"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let second = run(&format!("sink --listen {}", sink.2));
    assert_eq!(second.status.code(), Some(2));
    assert!(text(&second.stderr).contains("Address already in use"), "{}", text(&second.stderr));
    let (code, said) = sink.end();
    assert_eq!(code, Some(0));
    assert!(said.starts_with("20 sessions (20 with TLS), 20 messages, 40 recipients, "), "{said}");
    assert!(said.contains(": 20 arrived, 0 doubled; delay p50 "), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!((&report["messages"], &report["schema"]), (&20.into(), &"smtp-loadgen-sink/1".into()));
}

#[test]
fn a_sink_behind_a_director_hears_whose_client_it_is() {
    for version in ["v1", "v2"] {
        let sink = Outside::start("--proxy");
        let url = format!("smtp://{}", sink.2);
        let flags = "--sessions 2 --messages 12";
        let clients = "--proxy-clients 192.0.2.1-192.0.2.4";
        let output = run(&format!("smtp {url} {flags} --proxy {version} {clients}"));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
        // Whoever speaks SMTP at once is no director.
        let stranger =
            run(&format!("smtp {url} --sessions 1 --messages 1 --drop-after banner --timeout 100ms"));
        assert_eq!(stranger.status.code(), Some(2), "{}", text(&stranger.stdout));
        let (_, said) = sink.end();
        assert!(said.contains("\n12 sessions with a PROXY header, of 4 clients; 1 without\n"), "{said}");
    }
}

#[test]
fn exit_codes_are_what_the_manual_says() {
    let sink = sink(|_| {});
    let url = format!("smtp://{}", sink.address);
    for (words, code) in [
        (format!("smtp {url} --sessions 1 --messages 3"), 0),
        (format!("smtp {url} --sessions 1 --messages 3 --fail-if p99>1us"), 99),
        (format!("smtp {url}"), 1),
        (format!("smtp smtp://{} --sessions 1 --messages 3", closed()), 2),
        (format!("smtp {url} --sessions 1 --messages 3 --source 192.0.2.99"), 4),
        ("nonsense".to_owned(), 1),
        ("--help".to_owned(), 0),
    ] {
        let output = run(&words);
        assert_eq!(output.status.code(), Some(code), "{words}: {}", text(&output.stderr));
    }
}

#[test]
fn an_interrupted_run_reports_what_there_was_and_a_second_ctrl_c_waits_for_nothing() {
    // It greets nobody, so what is under way never ends by itself.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("smtp://{}", silent.local_addr().unwrap());
    let folder = Folder::new("load-interrupted");
    let json = folder.path().join("json");
    let mut command = Command::new(program());
    command.args([
        "smtp",
        &url,
        "--sessions",
        "3",
        "--duration",
        "1h",
        "--drain",
        "1h",
        "--progress",
        "plain",
    ]);
    command.arg("--json").arg(&json).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A line of progress: it runs and has its handlers.
    let mut progress = BufReader::new(child.stderr.take().unwrap());
    progress.read_line(&mut String::new()).unwrap();
    interrupt(&child);
    // The second signal would be the same one while the first is not taken.
    progress.read_line(&mut String::new()).unwrap();
    interrupt(&child);
    let drained = std::thread::spawn(move || {
        let mut rest = String::new();
        progress.read_to_string(&mut rest).unwrap();
        rest
    });
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(text(&output.stdout).contains("3 cut off") && text(&output.stdout).contains("(interrupted)"));
    assert!(drained.join().unwrap().contains("interrupted: this is part of a run"));
    let report: loadgen::report::Report = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert!(report.interrupted && report.counts.cut == 3);
}

#[test]
fn a_closed_pipe_is_no_trouble_and_a_full_disk_is() {
    let sink = sink(|_| {});
    let words = format!("smtp smtp://{} --sessions 1 --messages 3", sink.address);
    let mut child = Command::new(program()).args(words.split(' ')).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    for (flag, place) in
        [("--json", "/dev/full"), ("--html", "/dev/full"), ("--csv", "/dev/full"), ("--hdr-log", "/dev/full")]
    {
        let output = run(&format!("{words} {flag} {place}"));
        assert_eq!(output.status.code(), Some(2), "{flag}");
        assert!(
            text(&output.stderr).contains("/dev/full: No space left on device"),
            "{flag}: {}",
            text(&output.stderr)
        );
        assert!(text(&output.stdout).contains("3 ok"), "{flag}: the summary is not lost");
    }
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = Command::new(program()).args(words.split(' ')).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("standard output: No space left"), "{}", text(&output.stderr));
}

#[test]
fn used_up_descriptors_and_ports_are_named_with_a_way_out() {
    let sink =
        sink(|config| config.rules = vec![loadgen::sink::fault::Rule::parse("banner:delay=300ms").unwrap()]);
    let words = format!("smtp smtp://{} --sessions 60 --messages 60", sink.address);
    let shell = format!("ulimit -n 40 && exec {} {words} --threads 1", program().display());
    let output = Command::new("sh").args(["-c", &shell]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("ulimit -Hn"), "{}", text(&output.stderr));
    assert!(
        text(&output.stdout).contains("no descriptor was left: raise the limit"),
        "{}",
        text(&output.stdout)
    );
    let output = run(&format!("{words} --source 192.0.2.99"));
    assert!(text(&output.stdout).contains("no local port was left, or a source address is not ours"));
}

#[test]
#[ignore = "needs root: tests/run"]
fn a_host_without_ports_says_so_and_the_way_out_it_names_is_one() {
    // Ten ports in a network of its own; the sink holds a connection long enough for all sessions to want theirs.
    let script = format!(
        "ip link set lo up && echo 40000 40009 >/proc/sys/net/ipv4/ip_local_port_range || exit 9
        {0} sink --listen 127.0.0.1:2525 --fault banner:delay=500ms >sink & server=$!
        until grep -q listening sink; do kill -0 $server && sleep 0.05 || exit 9; done
        press='{0} smtp smtp://127.0.0.1:2525 --sessions 40 --messages 40 --threads 1'
        $press --json report >summary; echo $? >code
        $press --source 127.0.0.1-127.0.0.8 >out; echo $? >way-out
        kill $server",
        program().display()
    );
    let folder = Folder::new("load-ports");
    let output = Command::new("timeout")
        .args(["60", "unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", &script])
        .current_dir(folder.path())
        .output()
        .unwrap();
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    let said = format!("{output:?}\n{}\n{}", read("summary"), read("out"));
    assert_eq!(read("code"), "4\n", "{said}");
    assert!(
        read("summary").contains(
            "no local port was left, or a source address is not ours: --messages-per-conn, --source"
        ),
        "{said}"
    );
    let report: loadgen::report::Report = serde_json::from_str(&read("report")).unwrap();
    let named: Vec<_> = report.errors.iter().map(|row| (row.phase.as_str(), row.class.as_str())).collect();
    assert_eq!(named, [("connect", "no_ports")], "{said}");
    assert!(report.counts.ok >= 10 && report.counts.ok + report.counts.failed == 40, "{said}");
    assert_eq!(read("way-out"), "0\n", "{said}");
    assert!(read("out").contains("40 ok"), "{said}");
}

#[test]
fn two_workers_and_merge_do_the_plan_once() {
    let (sink, folder) = (sink(|_| {}), Folder::new("load-workers"));
    let log = |worker: u32| folder.path().join(format!("run{worker}.hlog"));
    let start = std::time::SystemTime::now() + Duration::from_secs(1);
    let start = start.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
    let children: Vec<Child> = (1..=2)
        .map(|worker| {
            let words = format!(
                "smtp smtp://{} --rate 100/s --duration 2s --worker {worker}/2 --start-at {start} --hdr-log {}",
                sink.address,
                log(worker).display()
            );
            Command::new(program()).args(words.split(' ')).stdout(Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in children {
        assert!(
            matches!(child.wait().unwrap().code(), Some(0 | 4)),
            "4: this machine is busy with other tests"
        );
    }
    let all = folder.path().join("all.hlog");
    let output = run(&format!("merge {} {} --hdr-log {}", log(1).display(), log(2).display(), all.display()));
    let said = text(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("headline ")).unwrap_or_else(|| panic!("{said}"));
    assert_eq!(line.split_whitespace().nth(1), Some("200"), "{said}");
    let again = run(&format!("merge {}", all.display()));
    assert_eq!(text(&again.stdout), said, "the sum is a log, too");
    assert_eq!(sink.report().messages, 200);
}

#[test]
fn compare_tells_what_became_worse() {
    let folder = Folder::new("load-compare");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let fast = sink(|_| {});
    let rules = vec![loadgen::sink::fault::Rule::parse("body:delay=20ms").unwrap()];
    let slow = sink(|config| config.rules = rules);
    for (sink, name) in [(&fast, "old"), (&slow, "new")] {
        let url = format!("smtp://{}", sink.address);
        let output = run(&format!("smtp {url} --sessions 1 --messages 20 --json {}", path(name)));
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    let output = run(&format!("compare {} {} --fail-if p50>+100%", path("old"), path("new")));
    assert_eq!(output.status.code(), Some(99), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("FAIL  p50>+100%"), "{}", text(&output.stdout));
    let output = run(&format!("compare {} {}", path("old"), path("old")));
    assert_eq!(output.status.code(), Some(0));
}
