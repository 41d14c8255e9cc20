//! Reading a tree by the tables of [`super::keys`]: every value that is right is taken, every other is noted, and where a
//! value is missing or wrong its default stands in for it, so that the reading can go on.

use serde_json::{Value, json};

use super::keys::{
    Choice, KeyDefault, KeyMap, ListRule, MapRule, PlanKey, TextCheck, TextRule, ValueKind,
};
use super::tree::{self, MapEntry, TreeNode, TreeValue};
use super::value_reader::{MapFields, ReadValues, ValueReader, shorten_text};
use crate::model::Minor;

/// Minor versions that EKS may ever offer to go to.
const MINORS: std::ops::RangeInclusive<u16> = 20..=99;

impl ValueReader {
    /// The values of a map's keys, with defaults filled in, and whether the map means something: its required keys are
    /// there and nothing in it excludes the rest.
    pub fn read_values(&mut self, map: &KeyMap, f: &MapFields<'_>) -> (ReadValues, bool) {
        let mut values = ReadValues::new();
        let mut complete = self.check_number_of_keys(map, f);
        // Keys in the order of the table, so that problems have the order of the documents.
        for key in map.keys {
            let read = match f.get(key.name) {
                Some(node) => self.read_value(&key.kind, node, &f.path_of(key.name), key.example),
                None => {
                    if matches!(key.default, KeyDefault::Required) {
                        self.note_missing_key(f, key);
                    }
                    None
                }
            };
            // A wrong value has a problem already; its default keeps later checks from failing for the same cause.
            match read.or_else(|| key.default_value()) {
                Some(value) => drop(values.insert(key.name.to_owned(), value)),
                None => complete &= !matches!(key.default, KeyDefault::Required),
            }
        }
        // Rules between keys come last, as they look at what was read.
        complete &= match map.rule {
            MapRule::Any => true,
            MapRule::OneKey => values.len() == 1,
            MapRule::Checked(check) => check(self, f, &values),
        };
        (values, complete)
    }

    /// The values of the keys that are given, without any default.
    fn read_given_values(&mut self, map: &KeyMap, f: &MapFields<'_>) -> ReadValues {
        let mut values = ReadValues::new();
        for key in map.keys {
            let Some(node) = f.get(key.name) else {
                continue;
            };
            let read = self.read_value(&key.kind, node, &f.path_of(key.name), key.example);
            if let Some(value) = read {
                values.insert(key.name.to_owned(), value);
            }
        }
        values
    }

    fn check_number_of_keys(&mut self, map: &KeyMap, f: &MapFields<'_>) -> bool {
        if !matches!(map.rule, MapRule::OneKey) {
            return true;
        }
        let given = f.given_keys();
        match given.as_slice() {
            [_] => true,
            // The problem shows every form, as nothing says which one was meant.
            [] => {
                let wanted: Vec<String> = map
                    .keys
                    .iter()
                    .map(|k| format!("`{}: {}`", k.name, k.example))
                    .collect();
                self.note_problem(
                    "plan::missing",
                    f.at,
                    format!("`{}` has none of its keys", f.path),
                    format!("write {}", wanted.join(" or ")),
                );
                false
            }
            // Neither wins: the order of keys means nothing in YAML.
            [first, second, ..] => {
                self.note_problem(
                    "plan::contradiction",
                    f.at,
                    format!("`{}` has both `{first}` and `{second}`", f.path),
                    "make two entries of it",
                );
                false
            }
        }
    }

    fn note_missing_key(&mut self, f: &MapFields<'_>, key: &PlanKey) {
        self.note_problem(
            "plan::missing",
            f.at,
            format!("`{}` is missing", f.path_of(key.name)),
            format!("write `{}: {}`", key.name, key.example),
        );
    }

    /// A value of a kind; none where it is wrong.
    fn read_value(
        &mut self,
        kind: &ValueKind,
        node: &TreeNode,
        path: &str,
        example: &str,
    ) -> Option<Value> {
        match kind {
            ValueKind::Version => self.read_version(node, path).map(|v| json!(v)),
            ValueKind::Text(rule) => self.read_ruled_text(rule, node, path).map(Value::String),
            ValueKind::Duration { least } => {
                self.read_duration(node, path, *least).map(|d| json!(d))
            }
            ValueKind::Integer { least, most } => self
                .read_integer(node, path, *least..=*most)
                .map(Value::from),
            ValueKind::Percent => self.read_integer(node, path, 1..=100).map(Value::from),
            ValueKind::Boolean => self.read_boolean(node, path).map(Value::Bool),
            ValueKind::Choice(choice) => self.read_word(choice, node, path),
            ValueKind::Map(map) => self.read_map_value(map, node, path),
            ValueKind::PartOf { map, .. } => {
                let f = self.read_fields(node, path, map.key_names());
                Some(Value::Object(self.read_given_values(map, &f)))
            }
            // What was written decides which form is meant, so that its problems are those of that form.
            ValueKind::ChoiceOrMap { choice, map, .. } => match node.what {
                TreeValue::Map(_) => self.read_map_value(map, node, path),
                TreeValue::Null | TreeValue::Scalar { .. } | TreeValue::List(_) => {
                    let word = self.read_word(choice, node, path);
                    if word.is_none() {
                        self.add_to_last_help(&format!("; or write a map such as `{example}`"));
                    }
                    word
                }
            },
            ValueKind::NamedValues { names, values } => {
                self.read_named_values(names, values, node, path, example)
            }
            ValueKind::List { items, rule } => {
                self.read_list_value(items, rule, node, path, example)
            }
        }
    }

    fn read_map_value(
        &mut self,
        map: &'static KeyMap,
        node: &TreeNode,
        path: &str,
    ) -> Option<Value> {
        let f = self.read_fields(node, path, map.key_names());
        let (values, complete) = self.read_values(map, &f);
        complete.then_some(Value::Object(values))
    }

    fn read_word(&mut self, choice: &Choice, node: &TreeNode, path: &str) -> Option<Value> {
        if let TreeValue::Scalar { text, .. } = &node.what
            && let Some((_, now)) = choice.retired.iter().find(|(old, _)| old == text)
        {
            self.note_problem(
                "plan::value",
                node.at,
                format!("`{text}` of `{path}` is called `{now}` now"),
                format!("write `{now}`"),
            );
            return None;
        }
        let word = self.read_choice(node, path, choice.words)?;
        Some(word.value())
    }

    fn read_version(&mut self, node: &TreeNode, path: &str) -> Option<Minor> {
        let text = self.read_text(node, path, "1.30")?;
        let Ok(minor) = text.parse::<Minor>() else {
            // A patch version such as 1.30.4 is what `kubectl version` shows, so the fix names its minor.
            let help = match Minor::from_reported(&text) {
                Ok(minor) => {
                    format!("EKS takes a minor version only: write `{path}: \"{minor}\"`")
                }
                Err(_) => format!("write a Kubernetes minor version such as `{path}: \"1.30\"`"),
            };
            self.note_problem(
                "plan::value",
                node.at,
                format!("`{}` is no Kubernetes minor version", shorten_text(&text)),
                help,
            );
            return None;
        };
        // A number far outside is a typing mistake; whether EKS offers it today, a check of the cluster says.
        if !MINORS.contains(&minor.number()) {
            self.note_problem(
                "plan::value",
                node.at,
                format!("EKS has no version {minor} to upgrade to"),
                format!("`aws eks describe-cluster-versions` lists what EKS offers; write one such as `{path}: \"1.30\"`"),
            );
            return None;
        }
        Some(minor)
    }

    fn read_ruled_text(&mut self, rule: &TextRule, node: &TreeNode, path: &str) -> Option<String> {
        let text = self.read_text(node, path, rule.example)?;
        let wrong = self.find_wrong_text(rule, &text, path);
        match wrong {
            None => Some(text),
            Some((message, help)) => {
                self.note_problem("plan::value", node.at, message, help);
                None
            }
        }
    }

    /// What is wrong with a text, and what to write instead.
    fn find_wrong_text(&self, rule: &TextRule, text: &str, path: &str) -> Option<(String, String)> {
        let message = || format!("`{}` is no `{path}`", shorten_text(text));
        match &rule.check {
            TextCheck::Any => None,
            TextCheck::Always(must) => (text != *must).then(|| {
                (
                    message(),
                    format!("this program reads `{path}: {must}`; for example `{must}`"),
                )
            }),
            TextCheck::Fits { rule: says, fits } => (!fits(text))
                .then(|| (message(), format!("{says}; for example `{}`", rule.example))),
            TextCheck::Checked(check) => check(text).err().map(|w| (w.message, w.help)),
        }
    }

    /// A map whose keys are names of the cluster.
    fn read_named_values(
        &mut self,
        names: &TextRule,
        values: &ValueKind,
        node: &TreeNode,
        path: &str,
        example: &str,
    ) -> Option<Value> {
        // A key without a value is an empty map, as everywhere in a plan.
        let entries: &[MapEntry] = match &node.what {
            TreeValue::Map(entries) => entries,
            TreeValue::Null => &[],
            TreeValue::Scalar { .. } | TreeValue::List(_) => {
                self.note_wrong_type(node, path, &format!("a map, such as `{example}`"));
                return None;
            }
        };
        let mut all = ReadValues::new();
        for (i, entry) in entries.iter().enumerate() {
            let path = format!("{path}.{}", shorten_text(&entry.key));
            // Compared with those before it, so that a pair is noted once.
            if entries[..i].iter().any(|e| e.key == entry.key) {
                self.note_problem(
                    "plan::duplicate-key",
                    entry.at,
                    format!("`{path}` is given twice"),
                    "keep one of the two",
                );
                continue;
            }
            // The name itself is checked before its value: a wrong name makes the value meaningless.
            if let Some((message, help)) = self.find_wrong_text(names, &entry.key, &path) {
                self.note_problem("plan::value", entry.at, message, help);
                continue;
            }
            if let Some(value) = self.read_value(values, &entry.value, &path, example) {
                all.insert(entry.key.clone(), value);
            }
        }
        Some(Value::Object(all))
    }

    fn read_list_value(
        &mut self,
        items: &ValueKind,
        rule: &ListRule,
        node: &TreeNode,
        path: &str,
        example: &str,
    ) -> Option<Value> {
        let nodes = self.read_list(node, path, example);
        let mut all: Vec<Value> = Vec::new();
        let noted_before = self.problems.len();
        for (i, item) in nodes.iter().enumerate() {
            let path_of_item = format!("{path}[{i}]");
            let noted_before = self.problems.len();
            let Some(value) = self.read_value(items, item, &path_of_item, example) else {
                continue;
            };
            // Where something is wrong in it, defaults stand in: only items that are right are compared.
            let right = self.problems.len() == noted_before;
            if right && matches!(rule, ListRule::Unique) && all.contains(&value) {
                let message = match &item.what {
                    TreeValue::Scalar { text, .. } => {
                        format!("`{}` is in `{path}` twice", shorten_text(text))
                    }
                    TreeValue::Null | TreeValue::List(_) | TreeValue::Map(_) => {
                        format!("`{path_of_item}` says the same as an item before it")
                    }
                };
                self.note_problem("plan::duplicate", item.at, message, "remove one of the two");
                continue;
            }
            all.push(value);
        }
        if matches!(rule, ListRule::RisingTo100) && self.problems.len() == noted_before {
            self.check_rising_percents(&all, nodes, node, path)?;
        }
        Some(Value::Array(all))
    }

    /// Notes where percentages do not rise to 100; none where they do not.
    fn check_rising_percents(
        &mut self,
        percents: &[Value],
        nodes: &[TreeNode],
        list: &TreeNode,
        path: &str,
    ) -> Option<()> {
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        // The second of a pair is the one that is wrong, so the problem stands at it.
        for (pair, item) in percents.windows(2).zip(&nodes[1.min(nodes.len())..]) {
            let (before, after) = (number(&pair[0]), number(&pair[1]));
            if after <= before {
                self.note_problem(
                    "plan::value",
                    item.at,
                    format!("{after} % after {before} % is no step forward"),
                    "write rising percentages, such as `[10, 50, 100]`",
                );
                return None;
            }
        }
        // The last step is where the traffic stays.
        match percents.last().map(number) {
            Some(100) => Some(()),
            Some(last) => {
                self.note_problem(
                    "plan::value",
                    list.at,
                    format!("the last step is {last} %, so blue would keep traffic forever"),
                    "end the list with 100",
                );
                None
            }
            None => {
                // A value that is no list has a problem already.
                if matches!(list.what, TreeValue::List(_)) {
                    self.note_problem(
                        "plan::value",
                        list.at,
                        format!("`{path}` is empty"),
                        "write at least `[100]`",
                    );
                }
                None
            }
        }
    }
}

impl PlanKey {
    /// What the plan means without the key; none where that is no value of the file's own.
    pub fn default_value(&self) -> Option<Value> {
        match (&self.default, &self.kind) {
            (KeyDefault::Written(text), kind) => read_spelled_value(kind, text).ok(),
            (KeyDefault::OfItsKeys, ValueKind::Map(map)) => {
                Some(Value::Object(map.default_values()))
            }
            (KeyDefault::OfItsKeys | KeyDefault::Absent(_) | KeyDefault::Required, _) => None,
        }
    }
}

impl KeyMap {
    /// The defaults of its keys.
    pub fn default_values(&self) -> ReadValues {
        let values = self.keys.iter().filter_map(|key| {
            let value = key.default_value()?;
            Some((key.name.to_owned(), value))
        });
        values.collect()
    }
}

/// Reads a value of a table as the file would spell it; the messages of its problems where it is wrong.
pub fn read_spelled_value(kind: &ValueKind, text: &str) -> Result<Value, Vec<String>> {
    let node = tree::parse_tree(text).map_err(|problem| vec![problem.message])?;
    let mut r = ValueReader::default();
    let value = r.read_value(kind, &node, "value", text);
    let problems: Vec<String> = r.problems.into_iter().map(|p| p.message).collect();
    match value {
        Some(value) if problems.is_empty() => Ok(value),
        _ => Err(problems),
    }
}
