//! EDGE: one HTTP/1.1 request and its answer (RFC 9112), of a server or of a proxy.
//!
//! Owns [`HttpSpec`], the request, and what a status and a body are worth. Refuses to follow redirects: they lead to
//! another server than the one that was asked. Fails at the stage `request`; an answer is read up to a cap.
#![expect(clippy::disallowed_methods, reason = "EDGE: measures the request")]

use std::net::SocketAddr;
use std::pin::pin;

use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use hyper::http::uri::Authority;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use crate::run::after;
use crate::smtp::Pattern;
use crate::smtp::reply::printable;
use crate::stream::{GOODBYE, Stream};
use crate::tls::TlsSpec;
use crate::tls::handshake::broken;
use crate::{Failure, Outcome, Reason, Stage, StageReport};

/// Most bytes of a body that are read.
pub const MAX_BODY: usize = 1024 * 1024;
/// Most bytes of a status line and its header fields.
const MAX_HEAD: usize = 32 * 1024;
/// Most header fields.
const MAX_FIELDS: usize = 100;
/// Longest target of a request.
const MAX_TARGET: usize = 2048;

/// What to ask of an HTTP server or proxy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpSpec {
    /// TLS with the first byte, whatever its mode says.
    pub tls: Option<TlsSpec>,
    /// GET or HEAD.
    pub method: Method,
    /// What stands in the request line: a path, or for a proxy a whole `http://` address; see [`is_target`].
    pub target: String,
    /// The `Host` field; without it the address of the server.
    pub host: Option<String>,
    /// Matches the body.
    pub receive: Option<Pattern>,
}

/// The methods that change nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// The whole answer.
    #[default]
    Get,
    /// The answer without its body.
    Head,
}

impl HttpSpec {
    /// The word for it in configuration and metrics.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match (&self.tls, self.target.starts_with('/')) {
            (_, false) => "http_proxy",
            (Some(_), true) => "https",
            (None, true) => "http",
        }
    }
}

/// Whether `text` can stand in a request line: a path that begins with `/`, or an `http://` address for a proxy.
#[must_use]
pub fn is_target(text: &str) -> bool {
    let plain = text.len() <= MAX_TARGET && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    plain
        && text.parse::<Uri>().is_ok_and(|uri| match uri.scheme_str() {
            None => text.starts_with('/'),
            Some(scheme) => scheme == "http" && authority(text).is_some_and(|host| is_host(&host)),
        })
}

/// Whether `text` can stand in the `Host` field: a name or an address, and perhaps a port.
#[must_use]
pub fn is_host(text: &str) -> bool {
    !text.contains('@') && text.parse::<Authority>().is_ok_and(|authority| !authority.host().is_empty())
}

/// The host and port of a whole address.
fn authority(target: &str) -> Option<String> {
    target.parse::<Uri>().ok()?.authority().map(ToString::to_string)
}

/// Asks once, at the latest until `deadline`, and leaves.
pub(crate) async fn ask(
    stream: Stream,
    (spec, server): (&HttpSpec, SocketAddr),
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let start = Instant::now();
    let request = request(spec, server).map_err(|text| failed(Reason::Local, None, &text))?;
    let mut builder = Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(MAX_FIELDS);
    // It only prepares; nothing is sent yet.
    let ready = builder.handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
    let (sender, connection) = ready.map_err(|error| trouble(&error))?;
    let (mut talk, mut connection) = (pin!(talk(sender, request, spec)), pin!(connection));
    let both = async {
        tokio::select! {
            biased;
            answer = &mut talk => (answer, false),
            _ = &mut connection => (talk.await, true),
        }
    };
    let Ok((answer, ended)) = timeout_at(deadline, both).await else {
        return Err(failed(Reason::Timeout, None, ""));
    };
    if !ended {
        let limit = after(Instant::now(), GOODBYE).min(deadline);
        let _ = timeout_at(limit, connection).await;
    }
    let answer = answer?;
    judge(spec, &answer)?;
    outcome.stages.push(StageReport {
        stage: Stage::Request,
        took: start.elapsed(),
        code: Some(answer.status),
        sent: format!("{} {}", word(spec.method), printable(spec.target.as_bytes())),
        received: vec![answer.line],
    });
    Ok(())
}

/// What came back.
struct Answer {
    status: u16,
    /// The status line.
    line: String,
    body: Vec<u8>,
    /// Why there is no more of the body.
    cut: Option<Failure>,
}

fn request(spec: &HttpSpec, server: SocketAddr) -> Result<Request<Empty<Bytes>>, String> {
    let usual = if spec.tls.is_some() { 443 } else { 80 };
    let server = match (server, server.port() == usual) {
        (SocketAddr::V4(v4), true) => v4.ip().to_string(),
        (SocketAddr::V6(v6), true) => format!("[{}]", v6.ip()),
        (server, false) => server.to_string(),
    };
    // RFC 9112 section 3.2.2: the field repeats the address of an absolute request.
    let host = spec.host.clone().or_else(|| authority(&spec.target)).unwrap_or(server);
    let built = Request::builder()
        .method(word(spec.method))
        .uri(&spec.target)
        .header(HOST, host)
        .header(USER_AGENT, "smtp-director")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::new());
    built.map_err(|error| error.to_string())
}

fn word(method: Method) -> &'static str {
    match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
    }
}

/// Sends the request and reads the answer. Ends the use of the connection.
async fn talk(
    mut sender: SendRequest<Empty<Bytes>>,
    request: Request<Empty<Bytes>>,
    spec: &HttpSpec,
) -> Result<Answer, Failure> {
    let response: Response<Incoming> = sender.send_request(request).await.map_err(|error| trouble(&error))?;
    let status = response.status();
    let line = printable(format!("{:?} {status}", response.version()).as_bytes());
    let mut answer = Answer { status: status.as_u16(), line, body: Vec::new(), cut: None };
    let (mut body, mut room) = (response.into_body(), MAX_BODY);
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let Ok(data) = frame.into_data() else { continue };
                let fitting = data.get(..room).unwrap_or(&data);
                // What nobody looks at is read all the same, so that an answer that breaks off is noticed.
                if spec.receive.is_some() {
                    answer.body.extend_from_slice(fitting);
                }
                if data.len() > room {
                    let text = format!("not in the first {MAX_BODY} bytes of the answer");
                    answer.cut = Some(failed(Reason::TooLong, Some(answer.status), &text));
                    break;
                }
                room -= data.len();
            }
            Err(error) => {
                answer.cut = Some(trouble(&error));
                break;
            }
        }
    }
    Ok(answer)
}

/// What an answer is worth.
fn judge(spec: &HttpSpec, answer: &Answer) -> Result<(), Failure> {
    // A redirect is a server that does what it was told to; where it leads is another server's business.
    if !matches!(answer.status, 200..=299 | 301 | 302 | 303 | 307 | 308) {
        return Err(failed(Reason::Unexpected, Some(answer.status), &answer.line));
    }
    let found = match &spec.receive {
        Some(pattern) => pattern.matches(&String::from_utf8_lossy(&answer.body)),
        // A body that breaks off is an answer that broke off; one that is long is none of our business.
        None => answer.cut.as_ref().is_none_or(|cut| cut.reason == Reason::TooLong),
    };
    match (found, &answer.cut) {
        (true, _) => Ok(()),
        (false, Some(cut)) => Err(cut.clone()),
        (false, None) => Err(failed(Reason::Mismatch, Some(answer.status), "the answer does not match")),
    }
}

fn trouble(error: &hyper::Error) -> Failure {
    let source = std::error::Error::source(error);
    let (reason, text) = if let Some(error) = source.and_then(|inner| inner.downcast_ref()) {
        broken(error)
    } else if error.is_parse_too_large() {
        (Reason::TooLong, error.to_string())
    } else if error.is_parse() || error.is_parse_status() {
        (Reason::Protocol, error.to_string())
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        (Reason::Closed, String::new())
    } else {
        // What is left is an answer that hyper cannot make sense of, such as a chunk without a size.
        (Reason::Protocol, error.to_string())
    };
    failed(reason, None, &text)
}

fn failed(reason: Reason, code: Option<u16>, text: &str) -> Failure {
    Failure { stage: Stage::Request, reason, code, text: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_and_hosts_are_those_that_a_request_can_carry() {
        for good in ["/", "/a?b=c&d", "/~x/%20", "http://www.example.com/", "http://10.0.0.1:80/x"] {
            assert!(is_target(good), "{good}");
        }
        for bad in
            ["", "a", "/a b", "/a\r\nX: y", "/\u{e9}", "/a#b", "*", "https://x/", "ftp://x/", "http:///x"]
        {
            assert!(!is_target(bad), "{bad}");
        }
        for good in ["www.example.com", "www.example.com:8080", "10.0.0.1", "[2001:db8::1]:80"] {
            assert!(is_host(good), "{good}");
        }
        for bad in ["", "a b", "a/b", "u@x", "a\r\nb", ":80"] {
            assert!(!is_host(bad), "{bad}");
        }
    }

    #[test]
    fn a_status_and_a_body_are_judged() {
        let verdict = |status, body: &str, receive: Option<&str>| {
            let receive = receive.map(|text| Pattern::new(text).unwrap());
            let target = "/".to_owned();
            let spec = HttpSpec { tls: None, method: Method::Get, target, host: None, receive };
            let line = "HTTP/1.1".to_owned();
            let answer = Answer { status, line, body: body.as_bytes().to_vec(), cut: None };
            judge(&spec, &answer).map_err(|failure| failure.reason)
        };
        for status in [200, 204, 299, 301, 302, 303, 307, 308] {
            assert_eq!(verdict(status, "", None), Ok(()), "{status}");
        }
        for status in [199, 300, 304, 400, 401, 404, 500, 503, 999] {
            assert_eq!(verdict(status, "well", Some("well")), Err(Reason::Unexpected), "{status}");
        }
        assert_eq!(verdict(200, "all is well", Some("is w")), Ok(()));
        assert_eq!(verdict(200, "all is lost", Some("is w")), Err(Reason::Mismatch));
    }
}
