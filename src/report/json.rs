//! JSON Lines for machines: the schema's version first, then one object an event. `docs/events.md` is the schema.

use std::io::{self, Write};

use serde::Serialize;

use super::sink::EventSink;
use super::view::RunView;
use crate::event::RunEvent;

/// The version of the event schema. Fields and types are only ever added within a major.
pub const EVENT_SCHEMA_VERSION: &str = "1.0";

/// Writes JSON Lines, each flushed.
pub struct JsonSink<O> {
    out: O,
}

impl<O: Write + Send> JsonSink<O> {
    /// Begins the stream with its version.
    pub fn new(mut out: O) -> io::Result<Self> {
        write_line(&mut out, &version_line())?;
        Ok(Self { out })
    }
}

/// The first line of a stream.
pub fn version_line() -> serde_json::Value {
    serde_json::json!({"type": "version", "schema": EVENT_SCHEMA_VERSION, "eksup": env!("CARGO_PKG_VERSION")})
}

/// Writes one object as a line.
pub fn write_line(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

impl<O: Write + Send> EventSink for JsonSink<O> {
    fn sink_name(&self) -> &'static str {
        "json"
    }

    fn show_event(&mut self, _view: &RunView, event: &RunEvent) -> io::Result<()> {
        write_line(&mut self.out, event)
    }
}
