//! EDGE: metrics over HTTP while a run lasts.
//!
//! Owns a listener and a thread that answers one client at a time, in time. Refuses to know the metrics
//! ([`crate::report::metrics`]). Fails to start as `bind` does; a client that misbehaves loses its connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::report::{Report, metrics};
use crate::run::{Second, Watch};

const PATIENCE: Duration = Duration::from_secs(2);

/// Answers scrapes.
pub(super) struct Exporter {
    page: Arc<Mutex<String>>,
    sums: metrics::Sums,
}

impl Exporter {
    pub(super) fn start(address: SocketAddr, run: &str) -> Result<Self, String> {
        let listener =
            TcpListener::bind(address).map_err(|error| format!("--prometheus {address}: {error}"))?;
        let sums = metrics::Sums::new(run);
        let page = Arc::new(Mutex::new(sums.render()));
        let shared = Arc::clone(&page);
        let serve = move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let _ = stream
                    .set_read_timeout(Some(PATIENCE))
                    .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
                let mut request = [0; 2048];
                let length = stream.read(&mut request).unwrap_or_default();
                let request = request.get(..length).unwrap_or_default();
                let (status, body) = if request.starts_with(b"GET /metrics ") {
                    ("200 OK", shared.lock().unwrap_or_else(PoisonError::into_inner).clone())
                } else {
                    ("404 Not Found", "it is at /metrics\n".to_owned())
                };
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                let _ = stream.write_all((head + &body).as_bytes());
            }
        };
        // It ends with the process.
        std::thread::Builder::new()
            .name("prometheus".to_owned())
            .spawn(serve)
            .map_err(|error| error.to_string())?;
        Ok(Self { page, sums })
    }
}

impl Watch for Exporter {
    fn second(&mut self, second: &Second) -> Result<(), String> {
        self.sums.add(second);
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = self.sums.render();
        Ok(())
    }

    fn done(&mut self, _: &Report) -> Result<(), String> {
        Ok(())
    }
}
