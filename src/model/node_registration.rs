//! Labels and taints with which nodes register themselves, as the user data of a launch template says. Pure.

use std::collections::BTreeMap;

use base64::Engine;
use serde::{Deserialize, Serialize};

use super::kube::Taint;

/// What the kubelet of a node registers it with beyond what EKS gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct NodeRegistration {
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
}

/// Where Bottlerocket's settings have them.
const LABEL_SETTINGS: &str = "settings.kubernetes.node-labels";
const TAINT_SETTINGS: &str = "settings.kubernetes.node-taints";

impl NodeRegistration {
    /// Reads user data as EC2 answers it, in base64: flags of the kubelet in scripts and in a NodeConfig, the list of a
    /// NodeConfig's kubelet configuration, and Bottlerocket's settings. None where it is no text.
    pub fn from_user_data(base64_text: &str) -> Option<Self> {
        let compact: String = base64_text.split_whitespace().collect();
        let standard = &base64::engine::general_purpose::STANDARD;
        let bytes = standard.decode(compact).ok()?;
        Some(Self::of_text(&String::from_utf8(bytes).ok()?))
    }

    fn of_text(text: &str) -> Self {
        // Comments are no settings, but the first line names the script's interpreter.
        let alive = text.lines().filter(|l| {
            let line = l.trim_start();
            !line.starts_with('#') || line.starts_with("#!")
        });
        let alive: Vec<&str> = alive.collect();
        let mut found = Self::default();
        // Flags of the kubelet, as scripts give them.
        for line in &alive {
            for pair in flag_values(line, "--node-labels") {
                if let Some((key, value)) = pair.split_once('=') {
                    found.labels.insert(key.to_owned(), value.to_owned());
                }
            }
            let taints = flag_values(line, "--register-with-taints");
            found
                .taints
                .extend(taints.iter().filter_map(|t| parse_taint(t)));
        }
        // The same in NodeConfig and in Bottlerocket's TOML.
        found.read_taint_list(&alive);
        found.read_settings(&alive);
        found.taints.sort();
        found.taints.dedup();
        found
    }

    /// `registerWithTaints:` of a kubelet configuration in YAML.
    fn read_taint_list(&mut self, lines: &[&str]) {
        let Some(start) = lines.iter().position(|l| l.trim() == "registerWithTaints:") else {
            return;
        };
        // A few lines are read out of a script or a document, so no YAML parser could take the whole.
        let indent = |line: &str| line.len() - line.trim_start().len();
        let outer = indent(lines[start]);
        let mut items: Vec<BTreeMap<String, String>> = Vec::new();
        for line in &lines[start + 1..] {
            let text = line.trim();
            let inside = indent(line) > outer || (indent(line) == outer && text.starts_with('-'));
            if text.is_empty() || !inside {
                break;
            }
            if text.starts_with('-') {
                items.push(BTreeMap::new());
            }
            let field = text.trim_start_matches('-').trim().split_once(':');
            if let (Some(item), Some((key, value))) = (items.last_mut(), field) {
                item.insert(key.trim().to_owned(), strip_quotes(value).to_owned());
            }
        }
        // An item without key or effect is no taint; what a template puts in its place is not known.
        let made = items.into_iter().filter_map(|mut item| {
            Some(Taint {
                key: item.remove("key")?,
                value: item.remove("value").filter(|v| !v.is_empty()),
                effect: item.remove("effect")?,
            })
        });
        self.taints.extend(made);
    }

    /// Reads labels and taints out of Bottlerocket's settings in TOML.
    fn read_settings(&mut self, lines: &[&str]) {
        let mut section = "";
        for line in lines.iter().map(|l| l.trim()) {
            if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = name.trim().trim_matches('"');
                continue;
            }
            let Some((key, value)) = line.split_once('=') else {
                continue;
            };
            let key = strip_quotes(key).to_owned();
            match section {
                LABEL_SETTINGS => {
                    self.labels.insert(key, strip_quotes(value).to_owned());
                }
                // One key may have several taints: a list of values with their effects.
                TAINT_SETTINGS => {
                    let values = value.trim().trim_matches(['[', ']']).split(',');
                    let values = values.map(strip_quotes).filter(|v| !v.is_empty());
                    let joined = values.map(|v| format!("{key}={v}"));
                    self.taints.extend(joined.filter_map(|t| parse_taint(&t)));
                }
                _ => {}
            }
        }
    }

    /// Text that says the same, for where the user data itself was not kept; empty where nothing is registered.
    pub fn stand_in(&self) -> String {
        let labels = self.labels.iter().map(|(k, v)| format!("{k}={v}"));
        let taints = self.taints.iter().map(|t| {
            let value = t.value.as_deref().unwrap_or_default();
            format!("{}={value}:{}", t.key, t.effect)
        });
        let flag = |name: &str, items: Vec<String>| match items.is_empty() {
            true => String::new(),
            false => format!("--{name}={}\n", items.join(",")),
        };
        flag("node-labels", labels.collect()) + &flag("register-with-taints", taints.collect())
    }
}

impl NodeRegistration {
    /// Returns the labels and taints as Bottlerocket's settings, for where the user data itself was not kept.
    pub fn stand_in_settings(&self) -> String {
        let mut text = String::new();
        if !self.labels.is_empty() {
            text += &format!("[{LABEL_SETTINGS}]\n");
        }
        for (key, value) in &self.labels {
            text += &format!("\"{key}\" = \"{value}\"\n");
        }
        if !self.taints.is_empty() {
            text += &format!("[{TAINT_SETTINGS}]\n");
        }
        for taint in &self.taints {
            let value = taint.value.as_deref().unwrap_or_default();
            text += &format!("\"{}\" = [\"{value}:{}\"]\n", taint.key, taint.effect);
        }
        text
    }
}

/// The items of a flag's value, wherever the flag stands in a line. What a shell puts in is left out.
fn flag_values<'l>(line: &'l str, flag: &str) -> Vec<&'l str> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices(flag) {
        let rest = &line[at + flag.len()..];
        let value = rest.trim_start_matches(['=', ' ', '"', '\'']);
        let end = value.find(|c: char| c.is_whitespace() || "\"'\\".contains(c));
        let value = &value[..end.unwrap_or(value.len())];
        let items = value.split(',');
        found.extend(items.filter(|item| !item.is_empty() && !item.contains('$')));
    }
    found
}

/// A taint as the kubelet's flag spells it: `key=value:Effect` or `key:Effect`.
fn parse_taint(text: &str) -> Option<Taint> {
    let (key, effect) = text.rsplit_once(':')?;
    let (key, value) = key.split_once('=').unwrap_or((key, ""));
    let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect);
    (known && !key.is_empty()).then(|| Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()).filter(|v| !v.is_empty()),
        effect: effect.to_owned(),
    })
}

fn strip_quotes(text: &str) -> &str {
    text.trim().trim_matches(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> NodeRegistration {
        let encoded = base64::engine::general_purpose::STANDARD.encode(text);
        NodeRegistration::from_user_data(&encoded).unwrap()
    }

    fn spelled(found: &NodeRegistration) -> (Vec<String>, Vec<String>) {
        let labels = found.labels.iter().map(|(k, v)| format!("{k}={v}"));
        let taints = found.taints.iter().map(|t| {
            let value = t.value.as_deref().unwrap_or("-");
            format!("{} {value} {}", t.key, t.effect)
        });
        (labels.collect(), taints.collect())
    }

    #[test]
    fn scripts_node_configs_and_settings_say_what_a_node_registers_with() {
        let script = read(
            "#!/bin/bash\n# --node-labels=dead=1\n/etc/eks/bootstrap.sh dev --kubelet-extra-args '--node-labels=pool=db,id=$ID --register-with-taints=dedicated=db:NoSchedule,spot:NoExecute'\n",
        );
        let config = read(
            "kind: NodeConfig\nspec:\n  kubelet:\n    flags:\n      - --node-labels=pool=db\n    config:\n      registerWithTaints:\n        - key: dedicated\n          value: \"db\"\n          effect: NoSchedule\n        - effect: NoExecute\n          key: spot\n      maxPods: 20\n",
        );
        let settings = read(
            "[settings.kubernetes]\nmax-pods = 20\n[settings.kubernetes.node-labels]\n\"pool\" = \"db\"\n[settings.kubernetes.node-taints]\n\"dedicated\" = [\"db:NoSchedule\"]\nspot = \":NoExecute\"\n[settings.host]\nx = 1\n",
        );
        for found in [&script, &config, &settings] {
            let (labels, taints) = spelled(found);
            assert_eq!(labels, ["pool=db"], "{found:?}");
            assert_eq!(
                taints,
                ["dedicated db NoSchedule", "spot - NoExecute"],
                "{found:?}"
            );
            assert_eq!(read(&found.stand_in()), *found);
            assert_eq!(read(&found.stand_in_settings()), *found);
        }
        assert_eq!(read("#!/bin/bash\necho hi\n"), NodeRegistration::default());
        assert_eq!(NodeRegistration::default().stand_in(), "");
    }
}
