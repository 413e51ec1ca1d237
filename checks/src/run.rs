//! EDGE: connects, and gives the connection to whoever knows what to ask.
//!
//! Owns the TCP handshake, the deadline, and the words for what the system says. Refuses to know what is asked.
#![expect(clippy::disallowed_methods, reason = "EDGE: a check has a deadline and is measured")]

use std::io::{self, ErrorKind};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::visit::Visit;
use crate::{CheckSpec, Failure, Kind, Outcome, Reason, Stage, StageReport, smtp, via};

/// `EHOSTDOWN` of Linux (`asm-generic/errno.h`), for which `ErrorKind` has no name.
const EHOSTDOWN: i32 = 112;

/// Asks one server once. Returns within the deadline and a scheduling delay; dropping the future ends the check and
/// closes its connection.
pub async fn run(spec: &CheckSpec) -> Outcome {
    let start = Instant::now();
    let deadline = after(start, spec.deadline);
    let mut outcome = Outcome {
        verdict: Ok(()),
        took: Duration::ZERO,
        stages: Vec::new(),
        capabilities: Vec::new(),
        tls: None,
    };
    let visit = |outcome| Visit { spec, start, deadline, outcome };
    let asked = match &spec.kind {
        Kind::Connect => connect(spec, start, deadline, &mut outcome).await.map(drop),
        Kind::Smtp(smtp) => match smtp::drive::prepare(smtp) {
            Ok(credential) => match connect(spec, start, deadline, &mut outcome).await {
                Ok(stream) => smtp::drive::converse(stream, smtp, credential, deadline, &mut outcome).await,
                Err(failure) => Err(failure),
            },
            Err(failure) => Err(failure),
        },
        // Boxed: a check is as large as the largest of its kinds, and most are SMTP.
        Kind::Http(http) => Box::pin(visit(&mut outcome).http(http)).await,
        Kind::Line(line) => Box::pin(visit(&mut outcome).line(line)).await,
        Kind::SimpleTcp(tcp) => Box::pin(visit(&mut outcome).simple_tcp(tcp)).await,
        Kind::Ping => Box::pin(visit(&mut outcome).ping()).await,
        Kind::External(command) => Box::pin(visit(&mut outcome).external(command)).await,
        Kind::Dns(dns) => Box::pin(visit(&mut outcome).dns(dns)).await,
        Kind::Ldap(ldap) => Box::pin(visit(&mut outcome).ldap(ldap)).await,
        Kind::Mysql(sql) => Box::pin(visit(&mut outcome).mysql(sql)).await,
        Kind::Pgsql(sql) => Box::pin(visit(&mut outcome).pgsql(sql)).await,
        Kind::Radius(radius) => Box::pin(visit(&mut outcome).radius(radius)).await,
        Kind::Sip(sip) => Box::pin(visit(&mut outcome).sip(sip)).await,
    };
    outcome.verdict = asked;
    outcome.took = start.elapsed();
    outcome
}

/// Opens the TCP connection, and reports that stage.
pub(crate) async fn connect(
    spec: &CheckSpec,
    start: Instant,
    deadline: Instant,
    outcome: &mut Outcome,
) -> Result<TcpStream, Failure> {
    let limit = after(start, spec.connect_timeout).min(deadline);
    // Where each write is one small packet that answers the server, nothing is ever held back (RFC 896).
    let in_step = matches!(&spec.kind, Kind::Smtp(smtp) if smtp.tls.is_none() && smtp.data.is_none());
    let connected = async {
        let stream = match spec.via {
            None => TcpStream::connect(spec.target).await?,
            Some(via) => via::connect(via, spec.target).await?,
        };
        if !in_step {
            // A small write goes at once, whatever the server has acknowledged.
            stream.set_nodelay(true)?;
        }
        Ok(stream)
    };
    let stream = match timeout_at(limit, connected).await {
        Ok(connected) => connected.map_err(|error: io::Error| not_connected(system(&error)))?,
        Err(_) => return Err(not_connected((Reason::Timeout, String::new()))),
    };
    outcome.stages.reserve_exact(4);
    outcome.stages.push(StageReport {
        stage: Stage::Connect,
        took: start.elapsed(),
        code: None,
        sent: String::new(),
        received: Vec::new(),
    });
    Ok(stream)
}

fn not_connected((reason, text): (Reason, String)) -> Failure {
    Failure { stage: Stage::Connect, reason, code: None, text }
}

/// `now` and `span`, or a time that never comes.
pub(crate) fn after(now: Instant, span: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    now + span.min(YEAR)
}

/// Whose fault an error of the system is. What is not known to be the server's or the network's is ours: a check that
/// could not be made must not take a server out.
pub(crate) fn system(error: &io::Error) -> (Reason, String) {
    let reason = match error.kind() {
        ErrorKind::ConnectionRefused => Reason::Refused,
        // A network without a route is missing here: what speaks against all servers at once is ours to mend.
        ErrorKind::HostUnreachable => Reason::Unreachable,
        // ENOTCONN: a connection that stood is no more.
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => Reason::Reset,
        ErrorKind::TimedOut => Reason::Timeout,
        _ if error.raw_os_error() == Some(EHOSTDOWN) => Reason::Unreachable,
        _ => Reason::Local,
    };
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    (reason, smtp::reply::printable(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_blamed_on_the_right_one() {
        // Numbers of Linux: EPERM, ENOMEM, EACCES, ENFILE, EMFILE, EPIPE, EADDRNOTAVAIL, ...
        for (errno, reason) in [
            (1, Reason::Local),
            (12, Reason::Local),
            (13, Reason::Local),
            (22, Reason::Local),
            (23, Reason::Local),
            (24, Reason::Local),
            (32, Reason::Reset),
            (97, Reason::Local),
            (99, Reason::Local),
            (101, Reason::Local),
            (104, Reason::Reset),
            (105, Reason::Local),
            (107, Reason::Reset),
            (110, Reason::Timeout),
            (111, Reason::Refused),
            (112, Reason::Unreachable),
            (113, Reason::Unreachable),
        ] {
            assert_eq!(system(&io::Error::from_raw_os_error(errno)).0, reason, "errno {errno}");
        }
    }

    #[test]
    fn a_check_in_flight_is_small() {
        let second = Duration::from_secs(1);
        let spec = CheckSpec {
            target: ([127, 0, 0, 1], 25).into(),
            kind: Kind::Smtp(smtp::SmtpSpec::default()),
            deadline: second,
            connect_timeout: second,
            via: None,
        };
        assert!(size_of_val(&run(&spec)) <= 2048, "{}", size_of_val(&run(&spec)));
    }
}
