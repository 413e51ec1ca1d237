//! Any text is a configuration or has at least one problem, and the report of it is printable.
#![no_main]

use libfuzzer_sys::fuzz_target;
use smtp_director::config::diagnostic::render;
use smtp_director::config::native::lower;

fuzz_target!(|text: &str| {
    let first = lower(text, &[], "director.example.com");
    if let Err(problems) = &first {
        assert!(!problems.is_empty());
        let report = render("smtp-director.toml", text, problems);
        assert!(report.chars().all(|c| c == '\n' || !c.is_control()));
    }
    assert_eq!(lower(text, &[], "director.example.com"), first);
});
