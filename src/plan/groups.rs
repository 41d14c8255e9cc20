//! The node groups of a plan.

use std::collections::BTreeMap;
use std::time::Duration;

use super::contradictions;
use super::keys::known_keys;
use super::tree::{TreeNode, TreeValue};
use super::types::{Capacity, NodeGroup, Strategy};
use super::value_reader::{
    ValueReader, is_cluster_name, note_missing, read_duration_or, shorten_text,
};
use crate::model::eks::NodegroupTaint;
use crate::scheduling::reserved_labels;

const MINUTE: Duration = Duration::from_secs(60);

/// Reads one entry of `nodeGroups`.
pub fn read_node_group(
    r: &mut ValueReader,
    node: &TreeNode,
    path: &str,
    strategy: Strategy,
) -> Option<NodeGroup> {
    let f = r.read_fields(node, path, known_keys("nodeGroups"));
    let group_rule = "a node group's name has up to 63 letters, digits, `-` and `_`, and begins with a letter or digit";
    let blue = match f.get("blue") {
        Some(n) => r.read_text_where(
            n,
            &f.path_of("blue"),
            "apps-blue",
            group_rule,
            is_group_name,
        ),
        None => note_missing(r, &f, "blue", "blue: apps-blue"),
    };
    let d = NodeGroup::with_defaults("", strategy);
    let group = NodeGroup {
        blue: blue.clone().unwrap_or_default(),
        green: f.get("green").and_then(|n| {
            r.read_text_where(
                n,
                &f.path_of("green"),
                "apps-green",
                group_rule,
                is_group_name,
            )
        }),
        ami_type: f.get("amiType").and_then(|n| {
            r.read_text_where(
                n,
                &f.path_of("amiType"),
                "AL2023_x86_64_STANDARD",
                "write one of EKS's AMI types; leave `amiType` out for a custom AMI",
                |t| {
                    t != "CUSTOM"
                        && t.contains('_')
                        && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                },
            )
        }),
        release_version: f.get("releaseVersion").and_then(|n| {
            r.read_text_where(
                n,
                &f.path_of("releaseVersion"),
                "1.30.14-20260801",
                "write an AMI release version",
                |t| t.contains('-') && t.starts_with(|c: char| c.is_ascii_digit()),
            )
        }),
        ami: f.get("ami").and_then(|n| {
            r.read_text_where(
                n,
                &f.path_of("ami"),
                "ami-0123456789abcdef0",
                "write an image id",
                |t| {
                    t.strip_prefix("ami-").is_some_and(|id| {
                        (8..=17).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_hexdigit())
                    })
                },
            )
        }),
        launch_template_version: f.get("launchTemplateVersion").and_then(|n| {
            r.read_integer(
                n,
                &f.path_of("launchTemplateVersion"),
                1..=i64::from(i32::MAX),
            )
        }),
        capacity: f
            .get("capacity")
            .and_then(|n| read_capacity(r, n, &f.path_of("capacity")))
            .unwrap_or(d.capacity),
        instance_types: f
            .get("instanceTypes")
            .map(|n| r.read_texts(n, &f.path_of("instanceTypes"), "m6i.large"))
            .filter(|l| !l.is_empty()),
        labels: f
            .get("labels")
            .map(|n| read_labels(r, n, &f.path_of("labels")))
            .unwrap_or_default(),
        taints: f
            .get("taints")
            .map(|n| read_taints(r, n, &f.path_of("taints")))
            .unwrap_or_default(),
        delete_owned: f
            .get("deleteOwned")
            .and_then(|n| r.read_boolean(n, &f.path_of("deleteOwned")))
            .unwrap_or(d.delete_owned),
        accept_degraded: f
            .get("acceptDegraded")
            .and_then(|n| r.read_boolean(n, &f.path_of("acceptDegraded")))
            .unwrap_or(d.accept_degraded),
        timeout: read_duration_or(r, &f, "timeout", MINUTE, d.timeout),
    };
    contradictions::check_group(r, &f, &group, strategy);
    blue.map(|_| group)
}

fn read_capacity(r: &mut ValueReader, node: &TreeNode, path: &str) -> Option<Capacity> {
    if matches!(node.what, TreeValue::Scalar { .. }) {
        return r
            .read_choice(node, path, &[("full", Capacity::Full)])
            .or_else(|| {
                if let Some(last) = r.problems.last_mut() {
                    last.help = Some("write `capacity: full` or `capacity: {surge: 1}`".to_owned());
                }
                None
            });
    }
    let f = r.read_fields(node, path, known_keys("nodeGroups.capacity"));
    match f.get("surge") {
        Some(n) => r
            .read_integer(n, &f.path_of("surge"), 1..=450)
            .and_then(|n| u32::try_from(n).ok())
            .map(Capacity::Surge),
        None if matches!(node.what, TreeValue::Map(_) | TreeValue::Null) => {
            note_missing(r, &f, "surge", "capacity: {surge: 1}")
        }
        None => None,
    }
}

fn read_labels(r: &mut ValueReader, node: &TreeNode, path: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (key, (value, entry)) in r.read_map(node, path, "tier: apps") {
        let word = |t: &str| {
            t.len() <= 63
                && t.bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let name = key.rsplit('/').next().unwrap_or(&key);
        if name.is_empty() || !word(name) || key.len() > 253 {
            r.note_problem(
                "plan::value",
                entry.at,
                format!("`{}` is no label key", shorten_text(&key)),
                "a key has up to 63 letters, digits, `-`, `_` and `.`, with an optional `prefix/`",
            );
        } else if !word(&value) || !ends_in_letters(&value) {
            r.note_problem(
                "plan::value",
                entry.value.at,
                format!("`{}` is no label value", shorten_text(&value)),
                "EKS takes a value of up to 63 letters, digits, `-`, `_` and `.` that begins and ends with a letter or digit",
            );
        } else if reserved_labels::is_refused_label(&key) || key.starts_with("alpha.eksctl.io/") {
            r.note_problem(
                "plan::value",
                entry.at,
                format!("the label `{key}` is not yours to set"),
                "EKS refuses labels of kubernetes.io, k8s.io and eks.amazonaws.com and their subdomains, or the kubelet does not start with them, and eksctl sets its own: use a key of your own domain, or one without a prefix",
            );
        } else {
            all.insert(key, value);
        }
    }
    all
}

fn ends_in_letters(value: &str) -> bool {
    let letter = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    letter(value.chars().next()) && letter(value.chars().last())
}

fn read_taints(r: &mut ValueReader, node: &TreeNode, path: &str) -> Vec<NodegroupTaint> {
    let effects = [
        ("NoSchedule", "NO_SCHEDULE"),
        ("NoExecute", "NO_EXECUTE"),
        ("PreferNoSchedule", "PREFER_NO_SCHEDULE"),
    ];
    let mut all = Vec::new();
    for (i, item) in r
        .read_list(
            node,
            path,
            "- {key: dedicated, value: batch, effect: NoSchedule}",
        )
        .iter()
        .enumerate()
    {
        let f = r.read_fields(
            item,
            &format!("{path}[{i}]"),
            known_keys("nodeGroups.taints"),
        );
        let key = match f.get("key") {
            Some(n) => r.read_text_where(
                n,
                &f.path_of("key"),
                "dedicated",
                "a taint's key is not eksup's own",
                |t| t.len() <= 253 && t != crate::model::marks::BLUE_TAINT,
            )
            .filter(|key| {
                let refused = reserved_labels::is_reserved_domain(key);
                if refused {
                    r.note_problem(
                        "plan::value",
                        n.at,
                        format!("the taint `{key}` is not yours to set"),
                        "EKS refuses taints of kubernetes.io, k8s.io and eks.amazonaws.com and their subdomains: use a key of your own domain, or one without a prefix",
                    );
                }
                !refused
            }),
            None => note_missing(r, &f, "key", "key: dedicated"),
        };
        let effect = match f.get("effect") {
            Some(n) => r.read_choice(n, &f.path_of("effect"), &effects),
            None => note_missing(r, &f, "effect", "effect: NoSchedule"),
        };
        let value = f.get("value").and_then(|n| {
            r.read_text_where(
                n,
                &f.path_of("value"),
                "batch",
                "a taint's value has up to 63 characters",
                |t| t.len() <= 63,
            )
        });
        if let (Some(key), Some(effect)) = (key, effect) {
            all.push(NodegroupTaint {
                key,
                value,
                effect: effect.to_owned(),
            });
        }
    }
    all
}

fn is_group_name(text: &str) -> bool {
    text.len() <= 63 && is_cluster_name(text)
}
