//! YAML text to a tree that knows where each value stands.
//!
//! A plan is read in two passes: here into a tree, then by the tables of [`super::keys`] into a [`super::Plan`]. Serde stops
//! at the first thing it does not like; a tree can be walked to its end, so that all problems are reported at once. Anchors,
//! tags, deep nesting and further documents are refused here: a plan needs none of them, and every one of them has
//! been somebody's way to crash a reader.

use serde_saphyr::granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

use super::error::{PlanProblem, SourceLocation};

/// Deeper than any plan.
const MAX_TREE_DEPTH: usize = 16;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct TreeNode {
    pub at: SourceLocation,
    pub what: TreeValue,
}

/// A value.
#[derive(Clone, Debug)]
pub enum TreeValue {
    /// Nothing, `~` or `null`.
    Null,
    Scalar {
        text: String,
        /// Written without quotes.
        plain: bool,
    },
    List(Vec<TreeNode>),
    Map(Vec<MapEntry>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub struct MapEntry {
    pub key: String,
    pub at: SourceLocation,
    pub value: TreeNode,
}

impl TreeNode {
    /// The value of a key, where it is a map that has it.
    pub fn value_of(&self, key: &str) -> Option<&Self> {
        let TreeValue::Map(entries) = &self.what else {
            return None;
        };
        entries.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// What kind of value it is, for people.
    pub fn kind_name(&self) -> &'static str {
        match self.what {
            TreeValue::Null => "nothing",
            TreeValue::Scalar { .. } => "a single value",
            TreeValue::List(_) => "a list",
            TreeValue::Map(_) => "a map",
        }
    }
}

/// Reads the one document of `text`.
pub fn parse_tree(text: &str) -> Result<TreeNode, PlanProblem> {
    let mut events = YamlEvents {
        parser: Parser::new_from_str(text),
        text,
    };
    // An empty file is an empty plan, and its missing keys are told as such.
    let root = loop {
        match events.next()? {
            (Event::StreamStart | Event::DocumentStart(..) | Event::Comment(..), _) => {}
            (Event::StreamEnd | Event::DocumentEnd, _) => {
                return Ok(TreeNode {
                    at: SourceLocation::default(),
                    what: TreeValue::Null,
                });
            }
            (event, at) => break events.read_node(event, at, 0)?,
        }
    };
    loop {
        // Nothing may follow: a second document would be ignored in silence.
        match events.next()? {
            (Event::StreamEnd, _) => return Ok(root),
            (Event::DocumentStart(..), at) => {
                return Err(PlanProblem::new("plan::documents", at, "a second document begins here")
                    .with_help("a plan file holds one plan: put the other one in a file of its own, and name it with PLAN or --cluster"));
            }
            _ => {}
        }
    }
}

struct YamlEvents<'t> {
    parser: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    text: &'t str,
}

impl<'t> YamlEvents<'t> {
    /// The next event that is no comment.
    fn next(&mut self) -> Result<(Event<'t>, SourceLocation), PlanProblem> {
        loop {
            match self.parser.next_event() {
                Some(Ok((Event::Comment(..), _))) => {}
                Some(Ok((event, span))) => return Ok((event, self.location_of(&span))),
                // The parser counts columns from 0, and its marker may lie behind the end of the text.
                Some(Err(error)) => {
                    let marker = error.marker();
                    let at = SourceLocation {
                        start: marker.byte_offset().unwrap_or(0).min(self.text.len()),
                        len: 0,
                        line: marker.line().max(1),
                        column: marker.col() + 1,
                    };
                    if *error.kind() == ErrorKind::RecursionLimitExceeded {
                        return Err(too_deep_problem(at));
                    }
                    return Err(PlanProblem::new("plan::syntax", at, format!("this is not YAML: {}", error.info()))
                        .with_help("look at the indentation, the quotes and the colons of this line and the one above it"));
                }
                None => return Ok((Event::StreamEnd, SourceLocation::default())),
            }
        }
    }

    fn location_of(&self, span: &Span) -> SourceLocation {
        let range = span.byte_range().unwrap_or(0..0);
        let end = range.end.min(self.text.len());
        let start = range.start.min(end);
        // A block's span runs to the next token: only its first line is of use to a reader.
        let len = self
            .text
            .get(start..end)
            .and_then(|s| s.lines().next())
            .map_or(0, |line| line.trim_end().len());
        SourceLocation {
            start,
            len,
            line: span.start.line().max(1),
            column: span.start.col() + 1,
        }
    }

    fn read_node(
        &mut self,
        event: Event<'t>,
        at: SourceLocation,
        depth: usize,
    ) -> Result<TreeNode, PlanProblem> {
        // Each level is a call on the stack, and the file is somebody else's.
        if depth > MAX_TREE_DEPTH {
            return Err(too_deep_problem(at));
        }
        // Anchors and tags are refused on every kind of node, before the node itself is read.
        match &event {
            Event::Scalar(_, _, anchor, tag) => refuse_extras(*anchor, tag.is_some(), at)?,
            Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => {
                refuse_extras(*anchor, tag.is_some(), at)?;
            }
            _ => {}
        }
        // The shape only: what a value means is decided where its key is known.
        let what = match event {
            Event::Scalar(text, style, ..) => scalar_value(text.into_owned(), style),
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break TreeValue::List(items),
                        (event, at) => items.push(self.read_node(event, at, depth + 1)?),
                    }
                }
            }
            Event::MappingStart(..) => {
                let mut entries = Vec::new();
                loop {
                    let (event, key_at) = self.next()?;
                    if matches!(event, Event::MappingEnd) {
                        break TreeValue::Map(entries);
                    }
                    // A key may be any scalar, also one that reads as a number or as null.
                    let key = match self.read_node(event, key_at, depth + 1)?.what {
                        TreeValue::Scalar { text, .. } => text,
                        TreeValue::Null => String::from("null"),
                        TreeValue::List(_) | TreeValue::Map(_) => {
                            return Err(PlanProblem::new(
                                "plan::type",
                                key_at,
                                "a key must be a single word",
                            )
                            .with_help("write `key: value`"));
                        }
                    };
                    let (event, at) = self.next()?;
                    entries.push(MapEntry {
                        key,
                        at: key_at,
                        value: self.read_node(event, at, depth + 1)?,
                    });
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => return Err(no_anchors_problem(at)),
            // The end of a collection or a document where a value belongs.
            _ => {
                return Err(PlanProblem::new(
                    "plan::syntax",
                    at,
                    "this is not YAML a plan can hold",
                )
                .with_help("write `key: value`"));
            }
        };
        Ok(TreeNode { at, what })
    }
}

fn scalar_value(text: String, style: ScalarStyle) -> TreeValue {
    let plain = style == ScalarStyle::Plain;
    if plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        TreeValue::Null
    } else {
        TreeValue::Scalar { text, plain }
    }
}

fn refuse_extras(anchor: usize, tagged: bool, at: SourceLocation) -> Result<(), PlanProblem> {
    if anchor != 0 {
        return Err(no_anchors_problem(at));
    }
    if tagged {
        return Err(PlanProblem::new(
            "plan::tag",
            at,
            "YAML tags (`!name`) mean nothing in a plan",
        )
        .with_help("remove the tag; quote the text if it begins with `!`"));
    }
    Ok(())
}

fn too_deep_problem(at: SourceLocation) -> PlanProblem {
    PlanProblem::new(
        "plan::depth",
        at,
        format!("nested more than {MAX_TREE_DEPTH} deep"),
    )
    .with_help("nothing in a plan is nested this deep; `eksup schema` prints what a plan may hold")
}

fn no_anchors_problem(at: SourceLocation) -> PlanProblem {
    PlanProblem::new(
        "plan::anchor",
        at,
        "YAML anchors and aliases (`&name`, `*name`) are not used in plans",
    )
    .with_help(
        "write the value out where it is needed; quote the text if it begins with `&` or `*`",
    )
}
