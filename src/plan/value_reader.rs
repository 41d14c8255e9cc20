//! Reading values out of a tree: each reader takes what it can and notes what it cannot.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::duration as spelled;
use super::error::{PlanProblem, SourceLocation};
use super::suggest::nearest_word;
use super::tree::{MapEntry, TreeNode, TreeValue};
use super::words::PlanWord;

/// No wait of an upgrade is longer: EKS's own version rollback closes after seven days.
pub const MAX_WAIT: Duration = Duration::from_secs(7 * 86_400);

/// The values of a map, by key, with defaults filled in; what [`super::types`] is made of.
pub type ReadValues = serde_json::Map<String, serde_json::Value>;

/// The problems found so far.
#[derive(Default)]
pub struct ValueReader {
    pub problems: Vec<PlanProblem>,
}

/// A map whose keys are known.
pub struct MapFields<'t> {
    /// Where the map stands.
    pub at: SourceLocation,
    /// Such as `drain` or `nodeGroups[0]`; empty for the plan itself.
    pub path: String,
    /// The keys that it may hold.
    known: Vec<&'static str>,
    entries: Vec<&'t MapEntry>,
}

impl<'t> MapFields<'t> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&'t TreeNode> {
        debug_assert!(
            self.known.contains(&key),
            "{key} is no key of {}",
            self.path
        );
        self.entries.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// Where a key stands, or the map when it is absent.
    pub fn location_of(&self, key: &str) -> SourceLocation {
        self.entries
            .iter()
            .find(|e| e.key == key)
            .map_or(self.at, |e| e.value.at)
    }

    /// The items of a key's list.
    pub fn items_of(&self, key: &str) -> &'t [TreeNode] {
        match self.get(key).map(|node| &node.what) {
            Some(TreeValue::List(items)) => items,
            Some(TreeValue::Null | TreeValue::Map(_) | TreeValue::Scalar { .. }) | None => &[],
        }
    }

    /// The keys that are given, in the order of the file.
    pub fn given_keys(&self) -> Vec<&'t str> {
        self.entries.iter().map(|e| e.key.as_str()).collect()
    }

    /// A key's path, for messages.
    pub fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }
}

impl ValueReader {
    /// Notes a problem.
    pub fn note_problem(
        &mut self,
        code: &'static str,
        at: SourceLocation,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems
            .push(PlanProblem::new(code, at, message).with_help(help));
    }

    /// Says more of what to write instead of the last problem's value.
    pub fn add_to_last_help(&mut self, more: &str) {
        if let Some(help) = self.problems.last_mut().and_then(|p| p.help.as_mut()) {
            help.push_str(more);
        }
    }

    /// A map of known keys; unknown and duplicate ones are noted.
    pub fn read_fields<'t>(
        &mut self,
        node: &'t TreeNode,
        path: &str,
        known: Vec<&'static str>,
    ) -> MapFields<'t> {
        let mut fields = MapFields {
            at: node.at,
            path: path.to_owned(),
            known: known.clone(),
            entries: Vec::new(),
        };
        // The plan itself has no name.
        let place = if path.is_empty() {
            "a plan".to_owned()
        } else {
            format!("`{path}`")
        };
        // A section without content is one of defaults only.
        match &node.what {
            TreeValue::Null => {}
            TreeValue::Map(entries) => {
                for entry in entries {
                    // An unknown key is never ignored: most often it is a known key with a typing mistake.
                    if !known.contains(&entry.key.as_str()) {
                        let help = match nearest_word(&entry.key, known.iter().copied()) {
                            Some(near) => format!(
                                "did you mean `{near}`? {place} may hold: {}",
                                known.join(", ")
                            ),
                            None => format!("remove it; {place} may hold: {}", known.join(", ")),
                        };
                        self.note_problem(
                            "plan::unknown-key",
                            entry.at,
                            format!("{place} has no key `{}`", shorten_text(&entry.key)),
                            help,
                        );
                    // Readers of YAML differ in which of two they take, so neither is taken silently.
                    } else if let Some(first) = fields.entries.iter().find(|e| e.key == entry.key) {
                        let help = format!(
                            "keep one of the two; the first is on line {}",
                            first.at.line
                        );
                        self.note_problem(
                            "plan::duplicate-key",
                            entry.at,
                            format!("`{}` is given twice", fields.path_of(&entry.key)),
                            help,
                        );
                    } else {
                        fields.entries.push(entry);
                    }
                }
            }
            // Three keys show what is meant; all of them would hide it.
            TreeValue::Scalar { .. } | TreeValue::List(_) => {
                self.note_wrong_type(
                    node,
                    path,
                    &format!(
                        "a map with keys such as {}",
                        known.iter().take(3).copied().collect::<Vec<_>>().join(", ")
                    ),
                );
            }
        }
        fields
    }

    /// A text.
    pub fn read_text(&mut self, node: &TreeNode, path: &str, example: &str) -> Option<String> {
        match &node.what {
            TreeValue::Scalar { text, .. } if !text.trim().is_empty() => Some(text.clone()),
            TreeValue::Null | TreeValue::Scalar { .. } | TreeValue::List(_) | TreeValue::Map(_) => {
                self.note_wrong_type(node, path, &format!("a text, such as `{example}`"));
                None
            }
        }
    }

    /// A duration.
    pub fn read_duration(
        &mut self,
        node: &TreeNode,
        path: &str,
        least: Duration,
    ) -> Option<Duration> {
        let text = self.read_text(node, path, "10m")?;
        // Each bound has a message of its own, because the fix differs.
        match spelled::parse_duration(&text) {
            Some(read) if read > MAX_WAIT => {
                self.note_problem(
                    "plan::value",
                    node.at,
                    format!("`{path}` is longer than 7 days"),
                    "write at most `7d`",
                );
                None
            }
            Some(read) if read < least => {
                self.note_problem(
                    "plan::value",
                    node.at,
                    format!(
                        "`{path}` is {}, which is too short",
                        spelled::format_duration(read)
                    ),
                    format!("write at least `{}`", spelled::format_duration(least)),
                );
                None
            }
            Some(read) => Some(read),
            None => {
                self.note_problem(
                    "plan::value",
                    node.at,
                    format!("`{}` is no duration", shorten_text(&text)),
                    "write a number with a unit, such as `30s`, `5m` or `1h30m`",
                );
                None
            }
        }
    }

    /// A whole number.
    pub fn read_integer(
        &mut self,
        node: &TreeNode,
        path: &str,
        range: RangeInclusive<i64>,
    ) -> Option<i64> {
        // A quoted number is a text to YAML, and `plain` tells the two apart.
        let TreeValue::Scalar { text, plain: true } = &node.what else {
            self.note_wrong_type(
                node,
                path,
                &format!("a whole number, such as {}", range.start()),
            );
            return None;
        };
        // A number too large for the type reads as no number; the bounds are told either way.
        match text.parse::<i64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(_) => {
                self.note_problem(
                    "plan::value",
                    node.at,
                    format!("`{path}` is {}, out of range", shorten_text(text)),
                    format!("write a number from {} to {}", range.start(), range.end()),
                );
                None
            }
            Err(_) => {
                self.note_problem(
                    "plan::value",
                    node.at,
                    format!("`{}` is no whole number", shorten_text(text)),
                    format!("write a number from {} to {}", range.start(), range.end()),
                );
                None
            }
        }
    }

    /// true or false.
    pub fn read_boolean(&mut self, node: &TreeNode, path: &str) -> Option<bool> {
        match &node.what {
            TreeValue::Scalar { text, plain: true } if text == "true" => Some(true),
            TreeValue::Scalar { text, plain: true } if text == "false" => Some(false),
            TreeValue::Null | TreeValue::Scalar { .. } | TreeValue::List(_) | TreeValue::Map(_) => {
                self.note_wrong_type(node, path, "`true` or `false`");
                None
            }
        }
    }

    /// One of a few words.
    pub fn read_choice(
        &mut self,
        node: &TreeNode,
        path: &str,
        words: &'static [PlanWord],
    ) -> Option<&'static PlanWord> {
        let all: Vec<String> = words.iter().map(|w| format!("`{}`", w.spelling)).collect();
        let all = match all.as_slice() {
            [only] => only.clone(),
            _ => format!("one of {}", all.join(", ")),
        };
        // Quotes do not matter here: every word is a text.
        let TreeValue::Scalar { text, .. } = &node.what else {
            self.note_wrong_type(node, path, &all);
            return None;
        };
        if let Some(word) = words.iter().find(|w| w.spelling == text) {
            return Some(word);
        }
        // A near word is offered first; all words are told in any case.
        let help = match nearest_word(text, words.iter().map(|w| w.spelling)) {
            Some(near) => format!("did you mean `{near}`? Write {all}"),
            None => format!("write {all}"),
        };
        self.note_problem(
            "plan::value",
            node.at,
            format!("`{}` is no `{path}`", shorten_text(text)),
            help,
        );
        None
    }

    /// A list.
    pub fn read_list<'t>(
        &mut self,
        node: &'t TreeNode,
        path: &str,
        example: &str,
    ) -> &'t [TreeNode] {
        match &node.what {
            TreeValue::List(items) => items,
            TreeValue::Null => &[],
            TreeValue::Scalar { .. } | TreeValue::Map(_) => {
                self.note_wrong_type(node, path, &format!("a list, such as `{example}`"));
                &[]
            }
        }
    }

    /// Notes that a value is of the wrong kind.
    pub fn note_wrong_type(&mut self, node: &TreeNode, path: &str, wanted: &str) {
        let path = if path.is_empty() { "a plan" } else { path };
        // The help differs by what was written: a key left empty may mean its default, and quotes hide a number.
        let help = match node.what {
            TreeValue::Null => {
                format!("write {wanted}, or remove the key to have its default")
            }
            TreeValue::Scalar { plain: false, .. } => {
                format!("write {wanted}, without quotes if it is a number, true or false")
            }
            TreeValue::Scalar { .. } | TreeValue::List(_) | TreeValue::Map(_) => {
                format!("write {wanted}")
            }
        };
        self.note_problem(
            "plan::type",
            node.at,
            format!(
                "`{path}` must be {}, and is {}",
                wanted.split(", such as").next().unwrap_or(wanted),
                node.kind_name()
            ),
            help,
        );
    }
}

/// Cuts a text from the file down to what fits in a message.
pub fn shorten_text(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    text.chars().take(57).chain("...".chars()).collect()
}
