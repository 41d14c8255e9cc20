//! What to put into the source of a NodePool, such as Git or a chart, where a run has replaced it.

use serde::Serialize;
use serde_json::Value;

use super::facts::{HandbackFacts, Reading};
use super::parts::{HandbackFile, HandbackStep};
use super::yaml::{YamlItem, YamlValue, quote_yaml, write_yaml};

/// A NodePool that the run replaced by another one.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplacedPool {
    pub blue: String,
    pub green: String,
    /// Green, and its node class where the run made it one, as a source would have them.
    pub manifests: Reading<Vec<Value>>,
}

/// What to tell the source of the NodePools.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolSection {
    pub node_pools: Vec<PoolPair>,
    pub files: Vec<HandbackFile>,
    pub steps: Vec<HandbackStep>,
}

/// Blue and the green that has its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PoolPair {
    pub blue: String,
    pub green: String,
}

/// Says what to tell the source; none where the run has replaced no NodePool.
pub fn tell_pool_source(facts: &HandbackFacts) -> Option<PoolSection> {
    if facts.pools.is_empty() {
        return None;
    }
    let pairs = facts.pools.iter().map(|pool| PoolPair {
        blue: pool.blue.clone(),
        green: pool.green.clone(),
    });
    let mut steps = vec![HandbackStep::of(
        "Where NodePools come from Git, a chart or another source, it has to have green instead of blue: until then its next synchronisation makes blue again.",
    )];
    for pool in &facts.pools {
        steps.push(match &pool.manifests {
            Reading::Known(_) => HandbackStep::of(format!(
                "Put what {} has into the source, with the labels and annotations by which your tool knows its objects, and take NodePool {} out of it.",
                file_name(&pool.green),
                pool.blue
            )),
            Reading::Unknown(why) => HandbackStep::of(format!(
                "unknown: NodePool {}, {why}. Take NodePool {} out of the source.",
                pool.green, pool.blue
            )),
        });
    }
    let files = facts.pools.iter().filter_map(|pool| {
        let Reading::Known(manifests) = &pool.manifests else {
            return None;
        };
        let texts: Vec<String> = manifests.iter().map(write_manifest).collect();
        Some(HandbackFile {
            name: file_name(&pool.green),
            language: "yaml",
            text: texts.join("---\n"),
        })
    });
    Some(PoolSection {
        node_pools: pairs.collect(),
        files: files.collect(),
        steps,
    })
}

fn file_name(green: &str) -> String {
    format!("nodepool-{green}.yaml")
}

fn write_manifest(object: &Value) -> String {
    match yaml_value(object) {
        YamlValue::Map(items) => write_yaml(&items),
        YamlValue::Text(_) | YamlValue::Number(_) | YamlValue::Bool(_) | YamlValue::List(_) => {
            String::new()
        }
    }
}

/// Whether a key is a word that YAML takes for nothing else: `on`, `y` and `1` are no strings there.
fn is_plain_key(key: &str) -> bool {
    const OTHER: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    let word = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.chars().all(|c| c.is_ascii_alphanumeric());
    word && key != "null" && !OTHER.contains(&key.to_lowercase().as_str())
}

/// JSON as a value of the document. Keys without a value are left out, and numbers that are no integers are quoted: the
/// objects of Karpenter have none.
fn yaml_value(value: &Value) -> YamlValue {
    match value {
        Value::Null => YamlValue::Text(String::new()),
        Value::Bool(b) => YamlValue::Bool(*b),
        Value::Number(n) => match n.as_i64() {
            Some(n) => YamlValue::Number(n),
            None => YamlValue::Text(n.to_string()),
        },
        Value::String(text) => YamlValue::Text(text.clone()),
        Value::Array(values) => YamlValue::List(values.iter().map(yaml_value).collect()),
        Value::Object(entries) => {
            let entries = entries.iter().filter(|(_, value)| !value.is_null());
            let items = entries.map(|(key, value)| {
                let key = match is_plain_key(key) {
                    true => key.clone(),
                    false => quote_yaml(key),
                };
                YamlItem::Entry(key, yaml_value(value))
            });
            YamlValue::Map(items.collect())
        }
    }
}
