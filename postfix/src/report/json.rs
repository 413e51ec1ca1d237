//! All instances and their sum, for programs.
//!
//! Owns the document and its reader. Fails with a text for people; what is wrong anywhere makes all of it no data.

use serde::{Deserialize, Serialize};

use super::{FIELDS, QueueReport, Slot, VERSION};

/// Longest document that is read, in bytes: more than a thousand instances need.
pub const MAX_DOCUMENT: usize = 1 << 20;
/// Longest name of an instance, in bytes.
pub const MAX_NAME: usize = 64;

/// What `--format json` prints, on one line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u64,
    /// All instances as one.
    pub sum: QueueReport,
    /// Each by itself.
    pub instances: Vec<Instance>,
}

/// One Postfix instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// `multi_instance_name`, or the last part of the configuration directory.
    pub name: String,
    /// How it is.
    #[serde(flatten)]
    pub report: QueueReport,
}

impl Document {
    /// The document of these instances.
    #[must_use]
    pub fn new(instances: Vec<Instance>) -> Self {
        let reports: Vec<_> = instances.iter().map(|instance| instance.report.clone()).collect();
        Self { version: VERSION, sum: QueueReport::sum(&reports), instances }
    }

    /// All of it, said so much later than it was made.
    #[must_use]
    pub fn aged(&self, milliseconds: u64) -> Self {
        let aged = |instance: &Instance| Instance {
            name: instance.name.clone(),
            report: instance.report.aged(milliseconds),
        };
        Self {
            version: self.version,
            sum: self.sum.aged(milliseconds),
            instances: self.instances.iter().map(aged).collect(),
        }
    }

    /// One line, its LF included.
    #[must_use]
    pub fn render(&self) -> String {
        // Numbers, booleans and names: nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// Reads a document. Members that are not known are those of a later program and skipped.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAX_DOCUMENT {
            return Err("more than a report can be".to_owned());
        }
        let mut document: Self = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if document.version != VERSION {
            return Err(format!("version {} of the report is not known", document.version));
        }
        let mut reports = vec![&mut document.sum];
        for instance in &mut document.instances {
            if !is_name(&instance.name) {
                return Err("the name of an instance is none".to_owned());
            }
            reports.push(&mut instance.report);
        }
        for report in reports {
            if let Some(key) = absurd(report) {
                return Err(format!("{key} is absurd"));
            }
        }
        Ok(document)
    }
}

/// Letters, digits, dots, hyphens and underscores: safe in a log, a terminal and a metric.
#[must_use]
pub fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fits)
}

/// The first figure that is beyond belief.
fn absurd(report: &mut QueueReport) -> Option<&'static str> {
    let field = FIELDS.iter().find(|field| match (field.slot)(report) {
        Slot::Count(slot) => slot.is_some_and(|number| number > field.most),
        Slot::Hundredths(slot) => slot.is_some_and(|parts| parts.0 > field.most),
        Slot::Flag(_) => false,
    });
    field.map(|field| field.key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Hundredths;

    #[test]
    fn a_document_is_read_as_it_was_written_and_a_wrong_one_is_none() {
        let report = QueueReport {
            active: Some(3),
            load: Some(Hundredths(123)),
            qmgr: Some(false),
            ..QueueReport::default()
        };
        let document = Document::new(vec![Instance { name: "postfix-out".to_owned(), report }]);
        let text = document.render();
        assert_eq!(
            text,
            "{\"version\":1,\"sum\":{\"active\":3,\"qmgr\":false,\"load\":1.23},\
             \"instances\":[{\"name\":\"postfix-out\",\"active\":3,\"qmgr\":false,\"load\":1.23}]}\n"
        );
        assert_eq!(Document::parse(text.as_bytes()), Ok(document));
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"active\":3", "\"active\":-3"),
            ("\"active\":3", "\"active\":1e400"),
            ("\"active\":3", "\"active\":1000000001"),
            ("1.23", "-1.23"),
            ("postfix-out", "a b"),
            ("}]}", "}]"),
        ] {
            assert!(Document::parse(text.replace(from, to).as_bytes()).is_err(), "{to}");
        }
        assert!(Document::parse(text.replace("\"active\":3", "\"next\":3").as_bytes()).is_ok());
    }
}
