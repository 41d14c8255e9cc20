//! Sinks for events: bars, lines, JSON Lines, Markdown, the marks of CI systems, a page.
//!
//! Sinks are shown each event with a [`RunView`], the fold that lines, bars and tables share; the page folds the recorded
//! events by itself, into more ([`page::build_report`]). Sinks run on a thread of their own, so that a slow terminal never holds up a
//! run, and a failing sink is remembered and told at the end instead of stopping anything.

pub mod ci;
pub mod json;
pub mod lines;
pub mod live_rows;
pub mod markdown;
pub mod page;
pub mod progress_bars;
pub mod recording;
pub mod sink;
pub mod text;
pub mod view;
pub mod wording;

#[cfg(test)]
mod tests;

pub use sink::{EventSink, Reporter};
pub use text::{Painter, format_duration};
pub use view::RunView;
