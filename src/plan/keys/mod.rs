//! The keys of the plan file, each declared once: its name, what values it takes, its default, its meaning, an example.
//!
//! From these tables come reading ([`super::table_reader`]), the JSON Schema ([`super::schema`]), the key reference in
//! `docs/plan.md` (`plan::reference`) and the plan that `eksup init` writes ([`super::template`]). What a key means to
//! the program is the field of that name in [`super::types`].

mod auto_scaling_groups;
mod drain;
mod karpenter;
mod node_groups;
mod notify;
mod text_rules;
mod traffic;
mod upgrade;
mod windows;

use std::time::Duration;

use super::value_reader::{MapFields, ReadValues, ValueReader};
use super::words::PlanWord;

pub use karpenter::KARPENTER_POOL;
pub use node_groups::NODE_GROUP;
pub use upgrade::UPGRADE_PLAN;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A map of the plan file and the keys that it may hold.
pub struct KeyMap {
    /// Its name in the JSON Schema.
    pub schema: &'static str,
    /// What it is about; empty where the key that holds it says so.
    pub meaning: &'static str,
    pub keys: &'static [PlanKey],
    pub rule: MapRule,
}

/// What is asked of a map beside what its keys ask.
pub enum MapRule {
    Any,
    /// Exactly one of its keys is given.
    OneKey,
    /// Notes contradictions between its keys; false where the map means nothing then.
    Checked(fn(&mut ValueReader, &MapFields<'_>, &ReadValues) -> bool),
}

/// One key of a map.
pub struct PlanKey {
    pub name: &'static str,
    pub kind: ValueKind,
    pub default: KeyDefault,
    /// A value as the file would spell it.
    pub example: &'static str,
    /// One sentence: for the JSON Schema, `docs/plan.md` and `eksup init`.
    pub meaning: &'static str,
    /// Why, and what else there is to know: for `docs/plan.md`, after the words that the key takes.
    pub more: &'static str,
    pub init: InitUse,
}

/// What a plan means without the key.
pub enum KeyDefault {
    /// The file is refused.
    Required,
    /// This value, as the file would spell it.
    Written(&'static str),
    /// No value of the file's own; what is done then, as Markdown.
    Absent(&'static str),
    /// The defaults of the keys of the map that it holds.
    OfItsKeys,
}

/// Whether `eksup init` writes a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum InitUse {
    /// What was found in the cluster, or the default.
    Written,
    /// What was found in the cluster, or the example as a comment.
    Shown,
    /// Only what was found in the cluster.
    LeftOut,
}

/// What values a key takes.
pub enum ValueKind {
    /// A Kubernetes minor version.
    Version,
    Text(&'static TextRule),
    /// At most [`super::value_reader::MAX_WAIT`].
    Duration {
        least: Duration,
    },
    Integer {
        least: i64,
        most: i64,
    },
    /// A whole number from 1 to 100.
    Percent,
    Boolean,
    Choice(&'static Choice),
    Map(&'static KeyMap),
    /// Some keys of a map that the plan itself holds; those that are not given are the plan's own.
    PartOf {
        /// Its name in the JSON Schema.
        schema: &'static str,
        map: &'static KeyMap,
    },
    /// A word for all, or a map.
    ChoiceOrMap {
        /// Its name in the JSON Schema.
        schema: &'static str,
        choice: &'static Choice,
        map: &'static KeyMap,
    },
    /// A map whose keys are names of the cluster, not of the plan.
    NamedValues {
        names: &'static TextRule,
        values: &'static ValueKind,
    },
    List {
        items: &'static ValueKind,
        /// What is asked of the list beside what its items ask.
        rule: ListRule,
    },
}

/// What is asked of a list.
pub enum ListRule {
    Any,
    /// No item twice.
    Unique,
    /// Percentages that rise to 100.
    RisingTo100,
}

/// A choice of words.
pub struct Choice {
    /// Its name in the JSON Schema.
    pub schema: &'static str,
    pub words: &'static [PlanWord],
    /// Former spellings, each with the word that is written now.
    pub retired: &'static [(&'static str, &'static str)],
}

/// What a text has to be.
pub struct TextRule {
    /// Its name in the JSON Schema, where several keys take such a text.
    pub schema: Option<&'static str>,
    /// A regular expression for the JSON Schema; the check may ask for more.
    pub pattern: Option<&'static str>,
    pub example: &'static str,
    /// What it may well be, where that is known.
    pub known: &'static [&'static str],
    pub check: TextCheck,
}

/// How a text is checked.
pub enum TextCheck {
    /// It is not empty.
    Any,
    /// It is this text.
    Always(&'static str),
    /// It fits what `rule` says.
    Fits {
        rule: &'static str,
        fits: fn(&str) -> bool,
    },
    /// Says what is wrong with it, if anything.
    Checked(fn(&str) -> Result<(), WrongText>),
}

/// What is wrong with a text.
pub struct WrongText {
    pub message: String,
    /// What to write instead.
    pub help: String,
}

impl KeyMap {
    /// The names of its keys.
    pub fn key_names(&self) -> Vec<&'static str> {
        self.keys.iter().map(|k| k.name).collect()
    }

    /// The key of that name.
    #[cfg(test)]
    pub fn find_key(&self, name: &str) -> Option<&'static PlanKey> {
        self.keys.iter().find(|k| k.name == name)
    }
}

/// A choice of words none of which was ever spelled otherwise.
const fn choice(schema: &'static str, words: &'static [PlanWord]) -> Choice {
    Choice {
        schema,
        words,
        retired: &[],
    }
}

/// A text that fits a rule.
const fn fitting_text(
    example: &'static str,
    rule: &'static str,
    fits: fn(&str) -> bool,
) -> TextRule {
    TextRule {
        schema: None,
        pattern: None,
        example,
        known: &[],
        check: TextCheck::Fits { rule, fits },
    }
}

/// Any text that is not empty.
const fn any_text(example: &'static str) -> TextRule {
    TextRule {
        schema: None,
        pattern: None,
        example,
        known: &[],
        check: TextCheck::Any,
    }
}
