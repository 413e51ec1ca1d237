//! The flags of `smtp` and `http`, and their help.
//!
//! Owns names, defaults, and which exclude each other. Refuses to know what they mean: values are text here, and are read
//! where the job is made.

use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Where to: smtp://HOST:PORT, smtps://, lmtp://, http://HOST:PORT/PATH, https://.
    #[arg(value_name = "URL", required_unless_present = "urls")]
    pub(super) targets: Vec<String>,
    /// More of them, a line each.
    #[arg(long, value_name = "FILE")]
    pub(super) urls: Option<PathBuf>,
    /// Choose among several at random, not in turn.
    #[arg(long)]
    pub(super) random: bool,

    /// Open load: start so many a second whatever comes of them, such as 300/s or 18000/m.
    #[arg(long, value_name = "R", help_heading = "Load", conflicts_with_all = ["sessions", "profile"])]
    pub(super) rate: Option<String>,
    /// Open load that changes: const:R/s,TIME ramp:A..B/s,TIME step:A..B/s,N,TIME spike:BASE/s,PEAK/s,FOR,TIME, joined by ;
    #[arg(long, value_name = "P", help_heading = "Load", conflicts_with = "sessions")]
    pub(super) profile: Option<String>,
    /// Closed load: so many sessions, each starts when it is done with what it did.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) sessions: Option<usize>,
    /// How open arrivals lie: uniform, poisson or jitter.
    #[arg(
        long,
        value_name = "LAW",
        default_value = "uniform",
        help_heading = "Load",
        conflicts_with = "sessions"
    )]
    pub(super) arrivals: String,
    /// What is due within this time is started together, at its end: 1ms takes half the CPU of 250us, and is up to 1 ms late.
    #[arg(long, value_name = "TIME", default_value = "250us", help_heading = "Load")]
    pub(super) tick: String,
    /// Sessions of an open load at one time.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1000,
        help_heading = "Load",
        conflicts_with = "sessions"
    )]
    pub(super) max_sessions: usize,
    /// End after so many messages or requests.
    #[arg(long, value_name = "N", alias = "requests", help_heading = "Load")]
    pub(super) messages: Option<u64>,
    /// End after this time. Without any end: 60s.
    #[arg(long, value_name = "TIME", help_heading = "Load")]
    pub(super) duration: Option<String>,
    /// How long to wait in the end for what is under way.
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Load")]
    pub(super) drain: String,
    /// Messages or requests on one connection: N, A..B; 0 is without end.
    #[arg(long, value_name = "LAW", alias = "requests-per-conn", help_heading = "Load")]
    pub(super) messages_per_conn: Option<String>,
    /// Time between two of a session in a closed load: 100ms or 100ms..500ms.
    #[arg(long, value_name = "TIME", default_value = "0s", help_heading = "Load", conflicts_with_all = ["rate", "profile"])]
    pub(super) think: String,
    /// Threads; without it one for each core, but no more than sessions.
    #[arg(long, value_name = "N", help_heading = "Load")]
    pub(super) threads: Option<usize>,
    /// This process's part of the plan: i/n, such as 1/3.
    #[arg(long, value_name = "I/N", default_value = "1/1", help_heading = "Load")]
    pub(super) worker: String,
    /// When to begin: RFC 3339, or seconds since 1970.
    #[arg(long, value_name = "WHEN", help_heading = "Load")]
    pub(super) start_at: Option<String>,
    /// Of all that is random; workers of one plan need the same.
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Load")]
    pub(super) seed: u64,

    /// ehlo, helo or lhlo.
    #[arg(long, value_name = "HOW", help_heading = "SMTP")]
    pub(super) hello: Option<String>,
    /// The name in EHLO.
    #[arg(long, value_name = "NAME", default_value = "smtp-loadgen.invalid", help_heading = "SMTP")]
    pub(super) name: String,
    /// off, opportunistic or required.
    #[arg(long, value_name = "HOW", default_value = "off", help_heading = "SMTP")]
    pub(super) starttls: String,
    /// off, auto (where it is offered) or force.
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "SMTP")]
    pub(super) pipeline: String,
    /// BDAT instead of DATA: off, auto (where it is offered) or required; with :BYTES in chunks of that.
    #[arg(long, value_name = "HOW", default_value = "off", help_heading = "SMTP")]
    pub(super) bdat: String,
    /// RSET before each message but the first, not only after a failure.
    #[arg(long, help_heading = "SMTP")]
    pub(super) rset: bool,
    /// Log in: a file with lines user:password, which others cannot read.
    #[arg(long, value_name = "FILE", help_heading = "SMTP")]
    pub(super) auth_file: Option<PathBuf>,
    /// plain, login or xoauth2; without it what the server offers.
    #[arg(long, value_name = "HOW", help_heading = "SMTP")]
    pub(super) auth: Option<String>,
    /// Log in without TLS too.
    #[arg(long, help_heading = "SMTP")]
    pub(super) auth_without_tls: bool,
    /// Do not say SIZE= where it is offered.
    #[arg(long, help_heading = "SMTP")]
    pub(super) no_size: bool,
    /// Say BODY=8BITMIME where it is offered.
    #[arg(long = "8bitmime", help_heading = "SMTP")]
    pub(super) eight_bit: bool,
    /// Say SMTPUTF8; a server that does not offer it fails.
    #[arg(long, help_heading = "SMTP")]
    pub(super) smtputf8: bool,
    /// Only connect; the same as --drop-after connect.
    #[arg(long, help_heading = "SMTP", conflicts_with_all = ["drop_after", "quit_after"])]
    pub(super) connect_only: bool,
    /// Close the connection without a word after this phase: connect, banner, ehlo, tls, auth, mail, rcpt, data.
    #[arg(long, value_name = "PHASE", help_heading = "SMTP", conflicts_with = "quit_after")]
    pub(super) drop_after: Option<String>,
    /// QUIT after this phase.
    #[arg(long, value_name = "PHASE", help_heading = "SMTP")]
    pub(super) quit_after: Option<String>,

    /// Bytes of body: N, A..B, lognormal:MEDIAN,SIGMA, table:N=WEIGHT,…; k and m are understood.
    #[arg(long, value_name = "LAW", default_value = "5k", help_heading = "Messages")]
    pub(super) size: String,
    /// The same body each time; --size must be one number.
    #[arg(long, help_heading = "Messages")]
    pub(super) same_body: bool,
    /// Send these in turn: eml:FILE or folder, mbox:FILE, maildir:FOLDER.
    #[arg(long, value_name = "SOURCE", help_heading = "Messages", conflicts_with_all = ["same_body", "size"])]
    pub(super) corpus: Option<String>,
    /// Sender; several are taken in turn, @FILE has one a line, <> is the null sender.
    #[arg(long, value_name = "ADDRESS", default_value = "sender@example.com", help_heading = "Messages")]
    pub(super) from: Vec<String>,
    /// Recipient; several are taken in turn, @FILE has one a line.
    #[arg(long, value_name = "ADDRESS", default_value = "recipient@example.com", help_heading = "Messages")]
    pub(super) to: Vec<String>,
    /// Recipients of a message: N or A..B.
    #[arg(long, value_name = "LAW", default_value = "1", help_heading = "Messages")]
    pub(super) recipients: String,

    /// HTTP/1.0 and a connection for each request.
    #[arg(long, help_heading = "HTTP")]
    pub(super) close_each: bool,
    /// A header of requests, such as "X-A: b".
    #[arg(long, value_name = "HEADER", help_heading = "HTTP")]
    pub(super) header: Vec<String>,
    /// The body of a URL must have the same checksum each time.
    #[arg(long, help_heading = "HTTP")]
    pub(super) checksum: bool,
    /// The body of a URL must have the same length each time.
    #[arg(long, help_heading = "HTTP", conflicts_with = "checksum")]
    pub(super) byte_count: bool,

    /// Source addresses in turn: A,B-C,D/N or @FILE.
    #[arg(long, value_name = "LIST", help_heading = "Connections")]
    pub(super) source: Option<String>,
    /// End connections by fin or rst.
    #[arg(long, value_name = "HOW", default_value = "fin", help_heading = "Connections")]
    pub(super) close: String,
    /// Say a PROXY header: v1 or v2.
    #[arg(long, value_name = "VERSION", help_heading = "Connections")]
    pub(super) proxy: Option<String>,
    /// Client addresses for the PROXY header, in turn; without it our own.
    #[arg(long, value_name = "LIST", help_heading = "Connections", requires = "proxy")]
    pub(super) proxy_clients: Option<String>,
    /// How long the TCP handshake may take.
    #[arg(long, value_name = "TIME", default_value = "30s", help_heading = "Connections")]
    pub(super) connect_timeout: String,
    /// How long each answer may take.
    #[arg(long, value_name = "TIME", default_value = "60s", help_heading = "Connections")]
    pub(super) timeout: String,
    /// How long an open load keeps a connection that it does not use.
    #[arg(long, value_name = "TIME", default_value = "5s", help_heading = "Connections")]
    pub(super) idle: String,
    /// Verify certificates by this CA file; without it any will do.
    #[arg(long, value_name = "FILE", help_heading = "Connections")]
    pub(super) tls_ca: Option<PathBuf>,
    /// The name to ask for and to verify; without it the host of the URL.
    #[arg(long, value_name = "NAME", help_heading = "Connections")]
    pub(super) tls_name: Option<String>,
    /// Resume TLS sessions, as one client would.
    #[arg(long, help_heading = "Connections")]
    pub(super) tls_resume: bool,

    /// Which real server answered: banner, ehlo, cert, banner:REGEX, reply:REGEX, header:NAME or none.
    #[arg(long, value_name = "WHERE", help_heading = "Servers")]
    pub(super) server_from: Option<String>,
    /// Expected weights: a=3,b=1.
    #[arg(long, value_name = "WEIGHTS", help_heading = "Servers")]
    pub(super) expect: Option<String>,

    #[command(flatten)]
    pub(super) output: crate::cli::output::Arguments,

    /// Press on this host though it is neither loopback nor private.
    #[arg(long, value_name = "HOST", help_heading = "Safety")]
    pub(super) i_own: Vec<String>,
    /// Send to recipients of this domain though it is not reserved for tests.
    #[arg(long, value_name = "DOMAIN", help_heading = "Safety")]
    pub(super) i_own_domain: Vec<String>,
}
