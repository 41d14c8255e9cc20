//! Whether each pod of blue could run on any node but blue's, by node selectors and taints.

use std::collections::HashMap;

use super::codes::Code;
use super::green_nodes;
use super::input::ReadinessInput;
use super::{Finding, Severity};
use crate::model::kube::{Node, Pod, SelectorExpression, Toleration};
use crate::model::marks::NODEGROUP_LABEL;
use crate::model::scheduling::{NodeSelector, NodeSelectorTerm};
use crate::scheduling::{node_affinity, reserved_labels, tolerations};

/// One green and the kinds of nodes it may have.
pub struct GreenCandidate {
    pub name: String,
    pub kinds: Vec<Node>,
    /// Whether the user data of its launch template was read.
    pub registration_known: bool,
}

/// All greens of a case.
pub fn green_candidates(case: &ReadinessInput<'_>) -> Vec<GreenCandidate> {
    let greens = case.changes.iter().map(|change| GreenCandidate {
        name: change.green.name.clone(),
        kinds: green_nodes::possible_nodes(case, change),
        registration_known: green_nodes::green_registration(case, change).is_some(),
    });
    greens.collect()
}

/// What a pod asks of a node by itself.
pub struct NodeRequirements<'a> {
    pub node_selector: &'a std::collections::BTreeMap<String, String>,
    pub affinity: Option<&'a NodeSelector>,
    pub tolerations: &'a [Toleration],
}

impl<'a> NodeRequirements<'a> {
    /// As its spec has it.
    pub fn of_pod(pod: &'a Pod) -> Self {
        Self {
            node_selector: &pod.node_selector,
            affinity: pod.scheduling.node_affinity.as_ref(),
            tolerations: &pod.tolerations,
        }
    }

    fn is_met_by(&self, node: &Node) -> bool {
        self.missing_on(node).is_empty()
    }

    /// Selects the node without the labels that programs in the cluster set.
    fn selects_without_discovered(&self, node: &Node) -> bool {
        let mut plain = node.clone();
        plain
            .labels
            .retain(|key, _| !reserved_labels::is_discovered_label(key));
        self.is_met_by(&plain)
    }

    /// What the node lacks; of alternatives the one that lacks least.
    pub fn missing_on(&self, node: &Node) -> Vec<MissingRequirement> {
        let mut missing: Vec<MissingRequirement> = (self.node_selector.iter())
            .filter(|(key, value)| node.labels.get(*key) != Some(value))
            .map(|(key, value)| MissingRequirement {
                key: key.clone(),
                text: format!("{key}={value}"),
            })
            .collect();
        // The terms are alternatives: the one that needs least is the one to meet.
        if let Some(affinity) = self.affinity
            && !node_affinity::selector_matches(affinity, &node.name, &node.labels)
        {
            let terms = affinity.terms.iter().map(|t| lacks_of_term(t, node));
            let least = terms.filter(|l| !l.is_empty()).min_by_key(Vec::len);
            missing.extend(least.unwrap_or_else(|| {
                vec![MissingRequirement {
                    key: String::new(),
                    text: "a node affinity that is empty".to_owned(),
                }]
            }));
        }
        missing
    }
}

/// Something that a node lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRequirement {
    pub key: String,
    pub text: String,
}

fn lacks_of_term(term: &NodeSelectorTerm, node: &Node) -> Vec<MissingRequirement> {
    let unmet = |e: &&SelectorExpression| !node_affinity::expression_matches(e, &node.labels);
    let expressions = term.expressions.iter().filter(unmet).map(|e| {
        let values = e.values.join("|");
        let text = match e.operator.as_str() {
            "In" => format!("{}={values}", e.key),
            "NotIn" => format!("{} other than {values}", e.key),
            "Exists" => format!("label {}", e.key),
            "DoesNotExist" => format!("absence of label {}", e.key),
            "Gt" => format!("{} above {values}", e.key),
            "Lt" => format!("{} below {values}", e.key),
            other => format!("{} {other} {values}", e.key),
        };
        MissingRequirement {
            key: e.key.clone(),
            text,
        }
    });
    // Fields name nodes, and are judged by the rules of a term that has nothing else.
    let named = |f: &&SelectorExpression| {
        let one = NodeSelectorTerm {
            expressions: Vec::new(),
            fields: vec![(*f).clone()],
        };
        !node_affinity::term_matches(&one, &node.name, &node.labels)
    };
    let fields = term
        .fields
        .iter()
        .filter(named)
        .map(|f| MissingRequirement {
            key: f.key.clone(),
            text: format!("{} {} {}", f.key, f.operator, f.values.join("|")),
        });
    expressions.chain(fields).collect()
}

/// What is to be said of a pod.
#[derive(Clone)]
enum PlacementVerdict {
    Fits,
    /// Only with labels that programs in the cluster set.
    Discovered(Vec<String>),
    Pinned {
        reasons: String,
        fix: String,
    },
    Taint {
        detail: String,
    },
}

/// Judges where the pods that move could run.
pub fn check_placement(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    if case.changes.is_empty() {
        return;
    }
    let greens = green_candidates(case);
    let blue = |n: &Node| n.nodegroup_name().is_some_and(|g| case.blues.contains(g));
    // Nodes of other groups may take pods too.
    let others: Vec<&Node> = (case.inventory.nodes.iter())
        .filter(|n| !blue(n) && n.is_ready() && !n.unschedulable && !n.deleting)
        .collect();
    // Pods of one owner ask for the same.
    let mut known: HashMap<(&str, &str), Vec<(&Pod, PlacementVerdict)>> = HashMap::new();
    for pod in case.moving_pods() {
        let owner = pod.owner.as_ref().map_or(pod.uid.as_str(), |o| &o.uid);
        let siblings = known.entry((&pod.key.namespace, owner)).or_default();
        let alike = siblings.iter().find(|(other, _)| {
            other.node_selector == pod.node_selector
                && other.tolerations == pod.tolerations
                && other.scheduling.node_affinity == pod.scheduling.node_affinity
        });
        let verdict = match alike {
            Some((_, verdict)) => verdict.clone(),
            None => {
                let verdict = verdict_of(&NodeRequirements::of_pod(pod), &greens, &others);
                siblings.push((pod, verdict.clone()));
                verdict
            }
        };
        report_verdict(pod, verdict, out);
    }
}

fn verdict_of(
    wants: &NodeRequirements<'_>,
    greens: &[GreenCandidate],
    others: &[&Node],
) -> PlacementVerdict {
    let all = || {
        let kinds = greens.iter().flat_map(|g| &g.kinds);
        kinds.chain(others.iter().copied())
    };
    let tolerated =
        |n: &&Node| tolerations::first_untolerated(&n.taints, wants.tolerations).is_none();
    // Nodes that the pod selects, and of them those whose taints it tolerates.
    let selected: Vec<&Node> = all().filter(|n| wants.is_met_by(n)).collect();
    let fitting: Vec<&Node> = selected.iter().copied().filter(tolerated).collect();
    if fitting
        .iter()
        .any(|n| others.iter().any(|o| o.name == n.name) || wants.selects_without_discovered(n))
    {
        return PlacementVerdict::Fits;
    }
    // Only labels that programs set later make green fit.
    if !fitting.is_empty() {
        let keys = wants.node_selector.keys();
        let terms = wants.affinity.iter().flat_map(|a| &a.terms);
        let of_terms = terms.flat_map(|t| t.expressions.iter().map(|e| &e.key));
        let discovered = keys
            .chain(of_terms)
            .filter(|k| reserved_labels::is_discovered_label(k));
        let mut discovered: Vec<String> = discovered.cloned().collect();
        discovered.sort();
        discovered.dedup();
        return PlacementVerdict::Discovered(discovered);
    }
    // Selected, and kept off by a taint of green's.
    for green in greens {
        let taint = green.kinds.iter().filter(|n| wants.is_met_by(n));
        let taint = taint
            .filter_map(|n| tolerations::first_untolerated(&n.taints, wants.tolerations))
            .next();
        if let Some(taint) = taint {
            let detail = format!(
                "nodes of {} have the taint {}, which it does not tolerate",
                green.name, taint.key
            );
            return PlacementVerdict::Taint { detail };
        }
    }
    // Not selected at all: the kind of node that lacks least tells best what to change.
    let least = |green: &GreenCandidate| {
        let lacks = green.kinds.iter().map(|n| wants.missing_on(n));
        lacks.min_by_key(Vec::len).unwrap_or_default()
    };
    let lacks: Vec<(&GreenCandidate, Vec<MissingRequirement>)> =
        greens.iter().map(|g| (g, least(g))).collect();
    let reasons = lacks.iter().map(|(green, lacks)| {
        let texts: Vec<&str> = lacks.iter().map(|l| l.text.as_str()).collect();
        format!(
            "it requires {}, which no node of {} has",
            texts.join(", "),
            green.name
        )
    });
    let reasons: Vec<String> = reasons.collect();
    let keys: Vec<&str> = lacks
        .iter()
        .flat_map(|(_, lacks)| lacks.iter().map(|l| l.key.as_str()))
        .collect();
    let known = lacks.iter().all(|(green, _)| green.registration_known);
    PlacementVerdict::Pinned {
        reasons: reasons.join("; "),
        fix: suggest_label_fix(&keys, known),
    }
}

/// What to do about labels that green's nodes will lack. Never to set a label that EKS or the kubelet refuses.
pub fn suggest_label_fix(keys: &[&str], registration_known: bool) -> String {
    // First the keys whose value only blue's nodes can have, then those that nobody may set.
    let any = |wanted: &dyn Fn(&str) -> bool| keys.iter().any(|k| wanted(k));
    if any(&|k| k == "kubernetes.io/hostname" || k == "metadata.name") {
        return "its nodeSelector or affinity names a node: remove that requirement".to_owned();
    }
    if any(&|k| k == NODEGROUP_LABEL || k.starts_with("alpha.eksctl.io/")) {
        return "its nodeSelector or affinity names its node group: select by a label that both groups have".to_owned();
    }
    if any(&|k| green_nodes::given_by_cluster(k)) {
        return "green's nodes are of another kind than blue's: set a suitable image, instance type or subnet for the \
             group, or change the nodeSelector or affinity".to_owned();
    }
    if let Some(key) = keys.iter().find(|k| reserved_labels::is_reserved_domain(k)) {
        let domain = key.split('/').next().unwrap_or_default();
        return format!(
            "EKS and the kubelet accept no label of {domain} for a node group: select by a label of your own instead, and \
             set it under `nodeGroups[].labels`"
        );
    }
    let mut fix =
        "set the label under `nodeGroups[].labels`, or change the nodeSelector or affinity"
            .to_owned();
    if !registration_known {
        fix += ". The launch template's user data could not be read: if it sets the label, green has it too";
    }
    fix
}

fn report_verdict(pod: &Pod, verdict: PlacementVerdict, out: &mut Vec<Finding>) {
    let subject = format!("pod {}", pod.key);
    match verdict {
        PlacementVerdict::Fits => {}
        PlacementVerdict::Discovered(keys) => {
            let detail = format!(
                "it requires {}, which programs in the cluster set on nodes that have joined: green's nodes have it only \
                 after these programs have run there",
                keys.join(", ")
            );
            let fix = "make sure that the DaemonSet which sets the label runs on green too";
            let finding = Finding::new(Code::PinnedToBlue, subject, detail, fix);
            out.push(finding.with_severity(Severity::Warning));
        }
        PlacementVerdict::Pinned { reasons, fix } => {
            out.push(Finding::new(Code::PinnedToBlue, subject, reasons, fix));
        }
        PlacementVerdict::Taint { detail } => {
            let fix = "add a toleration to it, or take the taint out of the plan";
            out.push(Finding::new(Code::NewTaint, subject, detail, fix));
        }
    }
}
