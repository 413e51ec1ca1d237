//! EDGE: `/metrics`, `/status` and `/ready` over HTTP/1.1.
//!
//! Owns the listener and its limits: few connections at a time, a deadline for each, no request body. Refuses to
//! know what it shows. It only ever reads: nothing that comes in here can change the farm. When the director
//! does not answer in time, the last picture is served, so that a stuck director can still be looked at.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tracing::{debug, warn};

use crate::director::Event;
use crate::metrics::Exporter;
use crate::snapshot::Snapshot;

/// Connections served at a time; others wait in the listen queue.
const CONNECTIONS: usize = 32;
/// A request's header must be here within this time.
const HEADER: Duration = Duration::from_secs(5);
/// A connection ends after this time, whatever it does.
const CONNECTION: Duration = Duration::from_secs(60);
/// How long to wait for a fresh picture.
const LOOK_TIME: Duration = Duration::from_secs(2);
/// Pause after a failed accept, so that a lack of descriptors is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Between two foldings of the metrics' samples.
const UPKEEP: Duration = Duration::from_secs(5);

/// What there is to see.
#[derive(Clone, Debug)]
pub struct View {
    /// The last picture.
    pub pictures: watch::Receiver<Arc<Snapshot>>,
    /// Where to ask for a fresh one.
    pub director: mpsc::Sender<Event>,
    /// The metrics.
    pub exporter: Arc<Exporter>,
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, view: View) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut upkeep = tokio::time::interval(UPKEEP);
    loop {
        let stream = tokio::select! {
            _ = upkeep.tick() => {
                view.exporter.upkeep();
                continue;
            }
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, place)) = stream else { continue };
        let view = view.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(request, view.clone()));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION, connection).await {
                debug!("http: {error}");
            }
            drop(place);
        });
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, place)),
        Err(error) => {
            warn!("http: cannot accept: {error}");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn answer(request: Request<Incoming>, view: View) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n".to_owned());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    Ok(match request.uri().path() {
        "/metrics" => {
            let body = view.exporter.render(&fresh(&view).await.picture);
            typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
        }
        "/status" => match serde_json::to_string_pretty(&*fresh(&view).await.picture) {
            Ok(body) => typed(StatusCode::OK, "application/json", body + "\n"),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        },
        "/ready" => ready(&fresh(&view).await),
        path => {
            text(StatusCode::NOT_FOUND, format!("{path} is not here; /metrics, /status and /ready are\n"))
        }
    })
}

/// Ready means: the director answers, every check has had an answer, and the table follows from them.
fn ready(look: &Look) -> Response<Full<Bytes>> {
    let reason = match (&look.picture.trouble, look.picture.all_known) {
        _ if !look.fresh => "the director does not answer",
        (Some(trouble), _) => trouble,
        (None, false) => "some checks have had no answer yet",
        (None, true) => return text(StatusCode::OK, "ready\n".to_owned()),
    };
    text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n"))
}

/// A picture, and whether the director drew it for us.
struct Look {
    picture: Arc<Snapshot>,
    fresh: bool,
}

async fn fresh(view: &View) -> Look {
    let (looker, looked) = oneshot::channel();
    let look = async { view.director.send(Event::Look(looker)).await.is_ok() && looked.await.is_ok() };
    let fresh = tokio::time::timeout(LOOK_TIME, look).await.unwrap_or(false);
    Look { picture: Arc::clone(&view.pictures.borrow()), fresh }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", body)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
