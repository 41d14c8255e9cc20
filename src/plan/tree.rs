//! YAML text to a tree that knows where each value stands.
//!
//! A plan is read in two passes: here into a tree, then in [`super::check`] into a [`super::Plan`]. Serde stops at the
//! first thing it does not like; a tree can be walked to its end, so that all problems are reported at once. Anchors,
//! tags, deep nesting and further documents are refused here: a plan needs none of them, and every one of them has
//! been somebody's way to crash a reader.

use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use super::error::{At, Problem};

/// Deeper than any plan.
const DEEPEST: usize = 16;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub at: At,
    pub what: What,
}

/// A value.
#[derive(Clone, Debug)]
pub enum What {
    /// Nothing, `~` or `null`.
    Null,
    Scalar {
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub key: String,
    pub at: At,
    pub value: Node,
}

impl Node {
    /// What kind of value it is, for people.
    pub fn kind(&self) -> &'static str {
        match self.what {
            What::Null => "nothing",
            What::Scalar { .. } => "a single value",
            What::List(_) => "a list",
            What::Map(_) => "a map",
        }
    }
}

/// Reads the one document of `text`.
pub fn grow(text: &str) -> Result<Node, Problem> {
    let mut events = Events {
        parser: Parser::new_from_str(text),
        text,
    };
    let root = loop {
        match events.next()? {
            (Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..), _) => {}
            (Event::StreamEnd | Event::DocumentEnd, _) => {
                return Ok(Node {
                    at: At::default(),
                    what: What::Null,
                });
            }
            (event, at) => break events.node(event, at, 0)?,
        }
    };
    loop {
        match events.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(..), at) => {
                return Err(Problem::new("plan::documents", at, "a second document begins here")
                    .help("a plan file holds one plan: put the other one in a file of its own, and name it with PLAN or --cluster"));
            }
            _ => {}
        }
    }
}

struct Events<'t> {
    parser: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    text: &'t str,
}

impl<'t> Events<'t> {
    /// The next event that is no comment.
    fn next(&mut self) -> Result<(Event<'t>, At), Problem> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, self.at(&span))),
                Some(Err(error)) => {
                    let marker = error.marker();
                    let at = At {
                        start: marker.byte_offset().unwrap_or(0).min(self.text.len()),
                        len: 0,
                        line: marker.line().max(1),
                        column: marker.col() + 1,
                    };
                    if *error.kind() == ErrorKind::RecursionLimitExceeded {
                        return Err(too_deep(at));
                    }
                    return Err(Problem::new("plan::syntax", at, format!("this is not YAML: {}", error.info()))
                        .help("look at the indentation, the quotes and the colons of this line and the one above it"));
                }
                None => return Ok((Event::StreamEnd, At::default())),
            }
        }
    }

    fn at(&self, span: &Span) -> At {
        let range = span.byte_range().unwrap_or(0..0);
        let end = range.end.min(self.text.len());
        let start = range.start.min(end);
        // A block's span runs to the next token: only its first line is of use to a reader.
        let len = self
            .text
            .get(start..end)
            .and_then(|s| s.lines().next())
            .map_or(0, |line| line.trim_end().len());
        At {
            start,
            len,
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        }
    }

    fn node(&mut self, event: Event<'t>, at: At, depth: usize) -> Result<Node, Problem> {
        if depth > DEEPEST {
            return Err(too_deep(at));
        }
        match &event {
            Event::Scalar(_, _, anchor, tag) => refuse_extras(*anchor, tag.is_some(), at)?,
            Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => {
                refuse_extras(*anchor, tag.is_some(), at)?;
            }
            _ => {}
        }
        let what = match event {
            Event::Scalar(text, style, ..) => scalar(text.into_owned(), style),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break What::List(items),
                        (event, at) => items.push(self.node(event, at, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    let (event, key_at) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        break What::Map(entries);
                    }
                    let key = match self.node(event, key_at, depth + 1)?.what {
                        What::Scalar { text, .. } => text,
                        What::Null => String::from("null"),
                        What::List(_) | What::Map(_) => {
                            return Err(Problem::new(
                                "plan::type",
                                key_at,
                                "a key must be a single word",
                            )
                            .help("write `key: value`"));
                        }
                    };
                    let (event, at) = self.next()?;
                    entries.push(Entry {
                        key,
                        at: key_at,
                        value: self.node(event, at, depth + 1)?,
                    });
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => return Err(no_anchors(at)),
            _ => {
                return Err(
                    Problem::new("plan::syntax", at, "this is not YAML a plan can hold")
                        .help("write `key: value`"),
                );
            }
        };
        Ok(Node { at, what })
    }
}

fn scalar(text: String, style: ScalarStyle) -> What {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        What::Null
    } else {
        What::Scalar { text, plain }
    }
}

fn refuse_extras(anchor: usize, tagged: bool, at: At) -> Result<(), Problem> {
    if anchor != 0 {
        return Err(no_anchors(at));
    }
    if tagged {
        return Err(Problem::new(
            "plan::tag",
            at,
            "YAML tags (`!name`) mean nothing in a plan",
        )
        .help("remove the tag; quote the text if it begins with `!`"));
    }
    Ok(())
}

fn too_deep(at: At) -> Problem {
    Problem::new(
        "plan::depth",
        at,
        format!("nested more than {DEEPEST} deep"),
    )
    .help("nothing in a plan is nested this deep; `eksup schema` prints what a plan may hold")
}

fn no_anchors(at: At) -> Problem {
    Problem::new(
        "plan::anchor",
        at,
        "YAML anchors and aliases (`&name`, `*name`) are not used in plans",
    )
    .help("write the value out where it is needed; quote the text if it begins with `&` or `*`")
}
