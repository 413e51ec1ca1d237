//! Connections between two whole checks, as the prober makes them.

use smtp_director::config::native::lower;
use smtp_director::prober::Prober;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

#[tokio::test]
async fn a_server_that_is_well_hears_a_whole_check_only_now_and_then() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let (heard, mut sessions) = mpsc::channel(64);
    tokio::spawn(async move {
        for number in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (reader, mut writer) = stream.split();
            // The second whole check is refused.
            let banner: &[u8] = if number == 4 { b"421 busy\r\n" } else { b"220 x\r\n" };
            let mut lines = BufReader::new(reader).lines();
            let mut said = writer.write_all(banner).await.is_ok();
            let mut count = 0;
            while said && let Ok(Some(_)) = lines.next_line().await {
                count += 1;
                said = writer.write_all(b"250 x\r\n").await.is_ok();
            }
            if heard.send(count > 0).await.is_err() {
                return;
            }
        }
    });
    let text = format!(
        "dataplane = \"proxy\"\ncheck = {{ interval = \"20ms\", retry = \"20ms\", connects_between = 3 }}\n\
         [[virtual]]\naddress = \"127.0.0.1:25\"\n[[virtual.real]]\naddress = \"{target}\"\n"
    );
    let config = lower(&text, &[], "d.example").unwrap();
    let plans = config.virtuals[0].reals[0].checks.clone();
    let (reports, mut findings) = mpsc::channel(64);
    let mut prober = Prober::new(reports);
    prober.sync(plans);
    let mut whole = String::new();
    while whole.len() < 11 {
        tokio::select! {
            session = sessions.recv() => whole.push(if session.unwrap() { 'W' } else { 'c' }),
            report = findings.recv() => drop(report.unwrap()),
        }
    }
    // After the refusal of the fifth session, the next one is whole again.
    assert_eq!(whole, "WcccWWcccWc");
}
