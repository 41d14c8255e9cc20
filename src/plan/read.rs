//! Reading values out of a tree: each reader takes what it can and notes what it cannot.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::{At, Problem};
use super::suggest::nearest;
use super::tree::{Entry, Node, What};
use super::{duration as spelled, tree};

/// The problems found so far.
#[derive(Default)]
pub struct Reader {
    pub problems: Vec<Problem>,
}

/// A map whose keys are known.
pub struct Fields<'t> {
    /// Where the map stands.
    pub at: At,
    /// Such as `drain` or `nodeGroups[0]`; empty for the plan itself.
    pub path: String,
    entries: Vec<&'t Entry>,
}

impl<'t> Fields<'t> {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&'t Node> {
        self.entries.iter().find(|e| e.key == key).map(|e| &e.value)
    }

    /// Where a key stands, or the map when it is absent.
    pub fn at(&self, key: &str) -> At {
        self.entries
            .iter()
            .find(|e| e.key == key)
            .map_or(self.at, |e| e.value.at)
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

impl Reader {
    /// Notes a problem.
    pub fn note(
        &mut self,
        code: &'static str,
        at: At,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems
            .push(Problem::new(code, at, message).help(help));
    }

    /// A map of known keys; unknown and duplicate ones are noted.
    pub fn fields<'t>(&mut self, node: &'t Node, path: &str, known: &[&str]) -> Fields<'t> {
        let mut fields = Fields {
            at: node.at,
            path: path.to_owned(),
            entries: Vec::new(),
        };
        let place = if path.is_empty() {
            "a plan".to_owned()
        } else {
            format!("`{path}`")
        };
        match &node.what {
            What::Null => {}
            What::Map(entries) => {
                for entry in entries {
                    if !known.contains(&entry.key.as_str()) {
                        let help = match nearest(&entry.key, known.iter().copied()) {
                            Some(near) => format!(
                                "did you mean `{near}`? {place} may hold: {}",
                                known.join(", ")
                            ),
                            None => format!("remove it; {place} may hold: {}", known.join(", ")),
                        };
                        self.note(
                            "plan::unknown-key",
                            entry.at,
                            format!("{place} has no key `{}`", shorten(&entry.key)),
                            help,
                        );
                    } else if let Some(first) = fields.entries.iter().find(|e| e.key == entry.key) {
                        let help = format!(
                            "keep one of the two; the first is on line {}",
                            first.at.line
                        );
                        self.note(
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
            What::Scalar { .. } | What::List(_) => {
                self.wrong_type(
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
    pub fn text(&mut self, node: &Node, path: &str, example: &str) -> Option<String> {
        match &node.what {
            What::Scalar { text, .. } if !text.trim().is_empty() => Some(text.clone()),
            _ => {
                self.wrong_type(node, path, &format!("a text, such as `{example}`"));
                None
            }
        }
    }

    /// A text that fits a rule.
    pub fn text_where(
        &mut self,
        node: &Node,
        path: &str,
        example: &str,
        rule: &str,
        fits: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let text = self.text(node, path, example)?;
        if fits(&text) {
            return Some(text);
        }
        self.note(
            "plan::value",
            node.at,
            format!("`{}` is no `{path}`", shorten(&text)),
            format!("{rule}; for example `{example}`"),
        );
        None
    }

    /// A duration.
    pub fn duration(&mut self, node: &Node, path: &str, least: Duration) -> Option<Duration> {
        let text = self.text(node, path, "10m")?;
        match spelled::read(&text) {
            Some(read) if read > super::check::LONGEST => {
                self.note(
                    "plan::value",
                    node.at,
                    format!("`{path}` is longer than 7 days"),
                    "write at most `7d`",
                );
                None
            }
            Some(read) if read < least => {
                self.note(
                    "plan::value",
                    node.at,
                    format!("`{path}` is {}, which is too short", spelled::write(read)),
                    format!("write at least `{}`", spelled::write(least)),
                );
                None
            }
            Some(read) => Some(read),
            None => {
                self.note(
                    "plan::value",
                    node.at,
                    format!("`{}` is no duration", shorten(&text)),
                    "write a number with a unit, such as `30s`, `5m` or `1h30m`",
                );
                None
            }
        }
    }

    /// A whole number.
    pub fn integer(&mut self, node: &Node, path: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let What::Scalar { text, plain: true } = &node.what else {
            self.wrong_type(
                node,
                path,
                &format!("a whole number, such as {}", range.start()),
            );
            return None;
        };
        match text.parse::<i64>() {
            Ok(number) if range.contains(&number) => Some(number),
            Ok(_) => {
                self.note(
                    "plan::value",
                    node.at,
                    format!("`{path}` is {}, out of range", shorten(text)),
                    format!("write a number from {} to {}", range.start(), range.end()),
                );
                None
            }
            Err(_) => {
                self.note(
                    "plan::value",
                    node.at,
                    format!("`{}` is no whole number", shorten(text)),
                    format!("write a number from {} to {}", range.start(), range.end()),
                );
                None
            }
        }
    }

    /// true or false.
    pub fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        match &node.what {
            What::Scalar { text, plain: true } if text == "true" => Some(true),
            What::Scalar { text, plain: true } if text == "false" => Some(false),
            _ => {
                self.wrong_type(node, path, "`true` or `false`");
                None
            }
        }
    }

    /// One of a few words.
    pub fn choice<T: Copy>(&mut self, node: &Node, path: &str, words: &[(&str, T)]) -> Option<T> {
        let all = || {
            words
                .iter()
                .map(|(w, _)| format!("`{w}`"))
                .collect::<Vec<_>>()
                .join(", ")
        };
        let What::Scalar { text, .. } = &node.what else {
            self.wrong_type(node, path, &format!("one of {}", all()));
            return None;
        };
        if let Some((_, value)) = words.iter().find(|(w, _)| w == text) {
            return Some(*value);
        }
        let help = match nearest(text, words.iter().map(|(w, _)| *w)) {
            Some(near) => format!("did you mean `{near}`? One of {}", all()),
            None => format!("write one of {}", all()),
        };
        self.note(
            "plan::value",
            node.at,
            format!("`{}` is no `{path}`", shorten(text)),
            help,
        );
        None
    }

    /// A list.
    pub fn list<'t>(&mut self, node: &'t Node, path: &str, example: &str) -> &'t [Node] {
        match &node.what {
            What::List(items) => items,
            What::Null => &[],
            What::Scalar { .. } | What::Map(_) => {
                self.wrong_type(node, path, &format!("a list, such as `{example}`"));
                &[]
            }
        }
    }

    /// A list of texts, none twice.
    pub fn texts(&mut self, node: &Node, path: &str, example: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for (i, item) in self
            .list(node, path, &format!("[{example}]"))
            .iter()
            .enumerate()
        {
            let Some(text) = self.text(item, &format!("{path}[{i}]"), example) else {
                continue;
            };
            if all.contains(&text) {
                self.note(
                    "plan::duplicate",
                    item.at,
                    format!("`{}` is in `{path}` twice", shorten(&text)),
                    "remove one of the two",
                );
            } else {
                all.push(text);
            }
        }
        all
    }

    /// A map of free keys to texts; an empty value is an empty text.
    pub fn map<'t>(
        &mut self,
        node: &'t Node,
        path: &str,
        example: &str,
    ) -> BTreeMap<String, (String, &'t Entry)> {
        let mut all: BTreeMap<String, (String, &Entry)> = BTreeMap::new();
        let entries: &[Entry] = match &node.what {
            What::Map(entries) => entries,
            What::Null => &[],
            What::Scalar { .. } | What::List(_) => {
                self.wrong_type(node, path, &format!("a map, such as `{example}`"));
                &[]
            }
        };
        for entry in entries {
            let text = match &entry.value.what {
                What::Null => String::new(),
                What::Scalar { text, .. } => text.clone(),
                What::List(_) | What::Map(_) => {
                    self.wrong_type(
                        &entry.value,
                        &format!("{path}.{}", shorten(&entry.key)),
                        "a text",
                    );
                    continue;
                }
            };
            if all.contains_key(&entry.key) {
                self.note(
                    "plan::duplicate-key",
                    entry.at,
                    format!("`{path}.{}` is given twice", shorten(&entry.key)),
                    "keep one of the two",
                );
            } else {
                all.insert(entry.key.clone(), (text, entry));
            }
        }
        all
    }

    /// Notes that a value is of the wrong kind.
    pub fn wrong_type(&mut self, node: &Node, path: &str, wanted: &str) {
        let path = if path.is_empty() { "a plan" } else { path };
        let help = match node.what {
            tree::What::Null => format!("write {wanted}, or remove the key to have its default"),
            tree::What::Scalar { plain: false, .. } => {
                format!("write {wanted}, without quotes if it is a number, true or false")
            }
            _ => format!("write {wanted}"),
        };
        self.note(
            "plan::type",
            node.at,
            format!(
                "`{path}` must be {}, and is {}",
                wanted.split(',').next().unwrap_or(wanted),
                node.kind()
            ),
            help,
        );
    }
}

/// Notes that a key is missing.
pub fn missing<T>(r: &mut Reader, f: &Fields<'_>, key: &str, write: &str) -> Option<T> {
    r.problems.push(
        Problem::new(
            "plan::missing",
            f.at,
            format!("`{}` is missing", f.path_of(key)),
        )
        .help(format!("write `{write}`")),
    );
    None
}

/// A key's duration, or its default.
pub fn duration(
    r: &mut Reader,
    f: &Fields<'_>,
    key: &str,
    least: Duration,
    default: Duration,
) -> Duration {
    f.get(key)
        .and_then(|n| r.duration(n, &f.path_of(key), least))
        .unwrap_or(default)
}

/// Whether a text can be a cluster's name, and (but for its length) a node group's.
pub fn cluster_name(text: &str) -> bool {
    text.len() <= 100
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// Cuts a text from the file down to what fits in a message.
pub fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    text.chars().take(57).chain("...".chars()).collect()
}
