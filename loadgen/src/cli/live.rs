//! EDGE: the picture of a run on a terminal, drawn over itself each second.
//!
//! Owns the terminal's size and where the picture stands. Refuses to know what is in it ([`crate::report::live`]). Cannot
//! fail: a terminal that is gone shows nothing.
//!
//! No mode of the terminal is changed (no other screen, no hidden cursor, no raw input), so there is nothing to put back:
//! whatever ends the process leaves a terminal that works, and what stood above is still there.

use std::fmt::Write as _;
use std::io::Write as _;

use crate::report::Report;
use crate::report::live::{Glyphs, Live, Paint, Screen, Shown};
use crate::run::{Second, Watch};

/// Where nothing is known of a terminal.
const SIZE: (usize, usize) = (80, 24);

/// The picture of a run.
pub(super) struct Picture {
    live: Live,
    /// Widths of the rows that stand there; the cursor is at the start of the row below.
    drawn: Vec<usize>,
}

impl Picture {
    /// Shows it before it begins.
    pub(super) fn new(shown: Shown) -> Self {
        let mut picture = Self { live: Live::new(shown), drawn: Vec::new() };
        picture.draw();
        picture
    }

    fn draw(&mut self) {
        let screen = screen();
        let mut out = self.up(screen.width + 1);
        for row in self.live.rows(screen) {
            let _ = writeln!(out, "{row}\x1b[K");
        }
        out.push_str("\x1b[J");
        let plain = self.live.rows(Screen { color: Paint::No, ..screen });
        self.drawn = plain.iter().map(|row| row.chars().count()).collect();
        let _ = std::io::stderr().write_all(out.as_bytes());
    }

    /// How high the picture is. A terminal that has become narrower has wrapped what was wider.
    fn height(&self, width: usize) -> usize {
        self.drawn.iter().map(|row| row.div_ceil(width.max(1)).max(1)).sum()
    }

    /// Back to the first row.
    fn up(&self, width: usize) -> String {
        match self.height(width) {
            0 => "\r".to_owned(),
            height => format!("\r\x1b[{height}A"),
        }
    }
}

impl Watch for Picture {
    fn second(&mut self, second: &Second) -> Result<(), String> {
        self.live.add(second);
        self.draw();
        Ok(())
    }

    fn done(&mut self, _: &Report) -> Result<(), String> {
        let width = screen().width + 1;
        let (up, rows) = (self.up(width), "\x1b[K\n".repeat(self.height(width)));
        // Row by row: tmux takes the clearing of a whole screen for something to remember.
        let _ = std::io::stderr().write_all(format!("{up}{rows}{up}").as_bytes());
        Ok(())
    }
}

/// What the terminal can show now; the last column stays free, where terminals differ.
fn screen() -> Screen {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let size = size.map(|size| (usize::from(size.ws_col), usize::from(size.ws_row)));
    let (width, height) = size.filter(|(width, height)| *width > 0 && *height > 0).unwrap_or(SIZE);
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set).unwrap_or_default().to_uppercase();
    let blocks =
        if locale.contains("UTF-8") || locale.contains("UTF8") { Glyphs::Blocks } else { Glyphs::Ascii };
    let color = if set("NO_COLOR").is_some() { Paint::No } else { Paint::Yes };
    Screen { width: width.saturating_sub(1), height, color, blocks }
}
