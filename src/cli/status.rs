//! EDGE: `status`: asks a running daemon for its picture and shows it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use super::{ConfigFile, Exit, Threads, read, runtime};
use crate::config::DEFAULT_HTTP;
use crate::config::load::http_of;
use crate::snapshot::{Detail, Snapshot, render};

/// The daemon answers within this time or counts as stuck.
const DEADLINE: Duration = Duration::from_secs(5);
/// More than a picture of thousands of servers needs.
const LIMIT: usize = 64 << 20;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Where the daemon serves HTTP, when it is not the configuration's `http`.
    #[arg(long, value_name = "ADDRESS:PORT")]
    http: Option<SocketAddr>,
    /// Print the picture as JSON.
    #[arg(long)]
    json: bool,
    /// Say below each server how its weight came about.
    #[arg(long)]
    why: bool,
}

pub(super) fn status(arguments: &Arguments) -> Result<(), Exit> {
    let address = match arguments.http {
        Some(address) => address,
        None => configured(&arguments.file.config)?,
    };
    let absent = |why: String| {
        let text = format!("no answer from http://{address}/status: {why}; is smtp-director running?");
        Exit::new(Exit::UNAVAILABLE, text)
    };
    let fetch = async { tokio::time::timeout(DEADLINE, fetch(address)).await };
    let body = match runtime(Threads::One)?.block_on(fetch) {
        Ok(answer) => answer.map_err(|error| absent(error.to_string()))?,
        Err(_) => return Err(absent(format!("nothing within {} s", DEADLINE.as_secs()))),
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        out.write_all(&body)?;
        return Ok(());
    }
    let snapshot: Snapshot = serde_json::from_slice(&body)
        .map_err(|error| absent(format!("the answer is not a picture of a farm ({error})")))?;
    let detail = if arguments.why { Detail::Why } else { Detail::State };
    write!(out, "{}", render(&snapshot, detail))?;
    Ok(())
}

/// Where the configuration says that the daemon serves. A file that is wrong now is no reason not to ask the daemon,
/// which may still run by the one before.
fn configured(file: &Path) -> Result<SocketAddr, Exit> {
    match read(file) {
        Ok(config) => config.http.ok_or_else(|| {
            Exit::new(Exit::UNAVAILABLE, "the configuration says http = \"off\"; the daemon cannot be asked")
        }),
        Err(exit) => {
            let http = http_of(file).unwrap_or(DEFAULT_HTTP);
            let remark = format!("{}\nsmtp-director: asking {http} all the same", exit.message.trim_end());
            let _ = writeln!(std::io::stderr(), "smtp-director: {remark}");
            Ok(http)
        }
    }
}

async fn fetch(address: SocketAddr) -> Result<Bytes, Box<dyn std::error::Error + Send + Sync>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = hyper::Request::get("/status")
        .header(hyper::header::HOST, address.to_string())
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("HTTP {}", response.status()).into());
    }
    Ok(Limited::new(response.into_body(), LIMIT).collect().await?.to_bytes())
}
