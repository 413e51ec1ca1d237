//! What an agent says, as a line and as a document: no panic, nothing absurd believed, what was read is written and read
//! again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postfix::report::agent::{MAX_LINE, parse, percent, render};
use postfix::report::json::Document;
use postfix::report::{MAX_AGE, MAX_COUNT, QueueReport};

fn believed(report: &QueueReport) {
    assert!([report.incoming, report.active, report.deferred].into_iter().flatten().all(|count| count <= MAX_COUNT));
    assert!([report.oldest, report.waiting].into_iter().flatten().all(|age| age <= MAX_AGE));
    assert!(percent(report).is_none_or(|percent| (10..=100).contains(&percent)));
    let line = render(report);
    assert!(line.len() <= MAX_LINE && line.ends_with('\n'));
    assert_eq!(parse(line.as_bytes()).unwrap().report.as_ref(), Some(report));
}

fuzz_target!(|data: &[u8]| {
    if let Ok(line) = parse(data)
        && let Some(report) = line.report
    {
        believed(&report);
    }
    if let Ok(document) = Document::parse(data) {
        believed(&document.sum);
        believed(&QueueReport::sum(
            &document.instances.iter().map(|instance| instance.report.clone()).collect::<Vec<_>>(),
        ));
        assert_eq!(Document::parse(document.render().as_bytes()).as_ref(), Ok(&document));
    }
});
