//! todo

/// todo
#[must_use]
pub fn render(_: &super::Report) -> String {
    String::new()
}
