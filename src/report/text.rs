//! How durations and colours are written.

use std::time::Duration;

use jiff::Timestamp;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Painter {
    pub on: bool,
}

impl Painter {
    /// Good.
    pub fn green(self, text: &str) -> String {
        self.paint_with("32", text)
    }

    /// Bad.
    pub fn red(self, text: &str) -> String {
        self.paint_with("31", text)
    }

    /// Worth a look.
    pub fn yellow(self, text: &str) -> String {
        self.paint_with("33", text)
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint_with("1", text)
    }

    /// Of less weight.
    pub fn dim(self, text: &str) -> String {
        self.paint_with("2", text)
    }

    fn paint_with(self, code: &str, text: &str) -> String {
        if self.on {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A duration as people say it: `45s`, `4m10s`, `1h02m`, `2d03h`.
pub fn format_duration(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        86400.. => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

/// The time from one moment to a later one.
pub fn time_between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The time of day, in UTC.
pub fn time_of_day(at: Timestamp) -> String {
    at.strftime("%H:%M:%S").to_string()
}
