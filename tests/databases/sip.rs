//! Real Kamailio.

use std::process::Command;

use checks::sip::SipSpec;
use checks::{Kind, Reason, Stage, Transport};

use super::{Server, stages};

fn kamailio(name: &str) -> Server {
    let mut server = Server::prepare(name);
    let configuration = server.write(
        "kamailio.cfg",
        "children=1\ntcp_children=1\nauto_aliases=no\nloadmodule \"sl.so\"\nloadmodule \"pv.so\"\n\
         loadmodule \"textops.so\"\n\
         request_route {\n\
           if (!is_method(\"OPTIONS\")) { sl_send_reply(\"405\", \"Method Not Allowed\"); exit; }\n\
           if ($rU == \"gone\") { sl_send_reply(\"404\", \"Not Found\"); exit; }\n\
           if ($rU == \"busy\") { sl_send_reply(\"503\", \"Service Unavailable\"); exit; }\n\
           if ($rU == \"slow\") { sl_send_reply(\"100\", \"Trying\"); }\n\
           sl_send_reply(\"200\", \"OK\");\n}\n",
    );
    let address = server.address;
    server.start(
        Command::new("/usr/sbin/kamailio")
            .args(["-DD", "-E", "-m", "16", "-M", "4", "-f", &configuration])
            .args(["-l", &format!("udp:{address}"), "-l", &format!("tcp:{address}")])
            .args(["-Y", &server.path(""), "-P", &server.path("pid")]),
    );
    server
}

fn kind(transport: Transport, user: &str) -> Kind {
    Kind::Sip(Box::new(SipSpec { transport, user: user.to_owned() }))
}

#[tokio::test]
#[ignore = "needs root and kamailio: tests/run"]
async fn a_sip_server_answers_options() {
    let mut server = kamailio("sip");
    for transport in [Transport::Udp, Transport::Tcp] {
        let outcome = server.until_well(&kind(transport, "smtp-director")).await;
        let whole: &[Stage] = match transport {
            Transport::Udp => &[Stage::Request],
            Transport::Tcp => &[Stage::Connect, Stage::Request, Stage::Quit],
        };
        let request = outcome.stages.iter().find(|report| report.stage == Stage::Request).unwrap();
        assert_eq!(request.received, ["SIP/2.0 200 OK"]);
        // Kamailio keeps a connection that the client ended for a while.
        assert!(stages(&outcome).starts_with(&whole[..whole.len().min(2)]), "{:?}", stages(&outcome));
        for (user, reason, code) in [("gone", Reason::Permfail, 404), ("busy", Reason::Tempfail, 503)] {
            let failure = server.failure(&kind(transport, user)).await;
            assert_eq!(failure, (Stage::Request, reason, Some(code)), "{transport:?}");
        }
        assert_eq!(server.check(&kind(transport, "slow")).await.verdict, Ok(()));
        let silence = server.silence(&kind(transport, "smtp-director")).await;
        assert_eq!(silence, (Stage::Request, Reason::Timeout), "{transport:?}");
    }
    server.stop();
    for transport in [Transport::Udp, Transport::Tcp] {
        let failure = server.failure(&kind(transport, "smtp-director")).await;
        assert_eq!(failure, (Stage::Connect, Reason::Refused, None), "{transport:?}");
    }
}
