//! JSON Lines for machines: the schema's version first, then one object an event. `docs/events.md` is the schema.

use std::io::{self, Write};

use serde::Serialize;

use super::sink::Sink;
use super::view::View;
use crate::event::Event;

/// The version of the event schema. Fields and types are only ever added within a major.
pub const SCHEMA: &str = "1.0";

/// Writes JSON Lines, each flushed.
pub struct Json<O> {
    out: O,
}

impl<O: Write + Send> Json<O> {
    /// Begins the stream with its version.
    pub fn new(mut out: O) -> io::Result<Self> {
        write(&mut out, &version())?;
        Ok(Self { out })
    }
}

/// The first line of a stream.
pub fn version() -> serde_json::Value {
    serde_json::json!({"type": "version", "schema": SCHEMA, "eksup": env!("CARGO_PKG_VERSION")})
}

/// Writes one object as a line.
pub fn write(out: &mut impl Write, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    out.write_all(&line)?;
    out.flush()
}

impl<O: Write + Send> Sink for Json<O> {
    fn name(&self) -> &'static str {
        "json"
    }

    fn event(&mut self, _view: &View, event: &Event) -> io::Result<()> {
        write(&mut self.out, event)
    }
}
