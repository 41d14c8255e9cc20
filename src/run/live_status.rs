//! What is where in the cluster itself: what `status` shows, and what a person needs who is woken by a run that is stuck.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::cluster_connection::ClusterConnection;
use super::live_node_pools::add_other_nodes;
use crate::journal::{FinalOutcome, RunState, StepStatus};
use crate::model::aws_status::AddonStatus;
use crate::model::eks::Nodegroup;
use crate::model::elb::{ListenerRule, WeightedTargetGroup, short_name, short_rule};
use crate::model::kube::Node;
use crate::model::node_source::NodeSource;
use crate::model::{ApiError, absent_is_none, marks};
use crate::route::{Route, StepSpec};
use crate::steps::nodes::EXCLUDE_LABEL_VALUE;
use crate::steps::traffic::RuleForward;

/// What is where, and the commands that take the run's marks off by hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveStatus {
    pub lines: Vec<String>,
    /// What is still there of the run.
    pub marks: Vec<String>,
    pub commands: Vec<String>,
    /// The same as `lines`, for machines.
    pub data: LiveData,
}

/// What is where, as `eksup status --format json` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveData {
    pub control_plane: Value,
    pub addons: Vec<Value>,
    pub node_groups: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub node_pools: Vec<Value>,
    pub rules: Vec<Value>,
}

/// Reads control plane, add-ons, node groups, rules and marks.
pub async fn read_live_status(
    reached: &ClusterConnection,
    state: Option<&RunState>,
    route: Option<&Route>,
) -> Result<LiveStatus, ApiError> {
    let (aws, name) = (&reached.aws, reached.cluster.name.as_str());
    let cluster = aws.describe_cluster(name).await?;
    let mut out = LiveStatus::default();
    out.lines.push(format!(
        "control plane: {} ({})",
        cluster.version, cluster.status
    ));
    out.data.control_plane =
        json!({"version": cluster.version, "status": cluster.status.to_string()});
    // Add-ons one by one: the list has only their names.
    let mut addons = Vec::new();
    for addon in aws.list_addons(name).await? {
        let Some(addon) = absent_is_none(aws.describe_addon(name, &addon).await)? else {
            // It went between the list and the look.
            continue;
        };
        out.data.addons.push(json!({
            "name": addon.name,
            "version": addon.version.to_string(),
            "status": addon.status.to_string(),
        }));
        // ACTIVE is what is expected and is left out, so that any other status is seen.
        let status = match &addon.status {
            AddonStatus::Active => String::new(),
            status @ (AddonStatus::Creating
            | AddonStatus::CreateFailed
            | AddonStatus::Updating
            | AddonStatus::Deleting
            | AddonStatus::DeleteFailed
            | AddonStatus::Degraded
            | AddonStatus::UpdateFailed
            | AddonStatus::Other(_)) => format!(" ({status})"),
        };
        addons.push(format!("{} {}{status}", addon.name, addon.version));
    }
    if !addons.is_empty() {
        out.lines.push(format!("add-ons: {}", addons.join(", ")));
    }
    // Read from the API and not from watches: whoever looks at a stuck run needs what is there at this moment.
    let self_managed = aws.list_self_managed_groups(name).await?;
    reached.kube.members.add_members(self_managed.iter());
    let nodes = reached.kube.list_nodes().await?;
    // Marks carry the run's id: without a journal nobody knows which to look for.
    let run = state.map(|s| s.run.as_str());
    let sizes = sizes_before_cordon(state, route);
    for group in aws.list_nodegroups(name).await? {
        let read = aws.read_managed_group(name, &group).await?;
        add_node_group(reached, read, &nodes, state, &sizes, &mut out).await?;
    }
    for group in &self_managed {
        let read = aws.read_self_managed_group(&group.name).await?;
        add_node_group(reached, read, &nodes, state, &sizes, &mut out).await?;
    }
    let reached_goal = state.is_some_and(has_reached_goal);
    add_other_nodes(reached, &nodes, (run, reached_goal), &mut out).await?;
    if let Some(run) = run {
        add_node_marks(&nodes, run, &mut out);
    }
    add_rules(reached, state, route, &mut out).await?;
    Ok(out)
}

/// Whether the run has reached what it was for: green and its weights are not left of it, they are what it was for.
fn has_reached_goal(state: &RunState) -> bool {
    state.outcome == Some(FinalOutcome::Done)
}

/// The largest size of each group before the run held it down.
pub(super) fn sizes_before_cordon(
    state: Option<&RunState>,
    route: Option<&Route>,
) -> BTreeMap<String, i64> {
    let mut sizes = BTreeMap::new();
    for step in route.iter().flat_map(|r| &r.steps) {
        let StepSpec::CordonBlue { blue, .. } = &step.spec else {
            continue;
        };
        let known = state.and_then(|s| s.find_step(&step.id));
        let open = known.filter(|s| s.acts > 0 && s.status != StepStatus::Undone);
        if let Some(max) = open.and_then(|s| s.before.as_ref()?.get("max")?.as_i64()) {
            sizes.insert(blue.clone(), max);
        }
    }
    sizes
}

async fn add_node_group(
    reached: &ClusterConnection,
    read: Option<Nodegroup>,
    nodes: &[Node],
    state: Option<&RunState>,
    sizes: &BTreeMap<String, i64>,
    out: &mut LiveStatus,
) -> Result<(), ApiError> {
    let (aws, cluster) = (&reached.aws, reached.cluster.name.as_str());
    // It may have gone between the list and the look.
    let Some(group) = read else {
        return Ok(());
    };
    let words = group.source.group_words();
    let own: Vec<_> = nodes
        .iter()
        .filter(|n| n.nodegroup_name() == Some(&group.name))
        .collect();
    let ready = own.iter().filter(|n| n.is_ready()).count();
    let closed = own.iter().filter(|n| n.unschedulable).count();
    // A group with a custom image has no version that EKS knows.
    let version = group
        .version
        .map_or_else(|| "custom".to_owned(), |v| v.to_string());
    out.lines.push(format!(
        "{words} {}: {version}, {}, {ready} of {} nodes ready, {closed} cordoned",
        group.name,
        group.status,
        own.len()
    ));
    out.data.node_groups.push(json!({
        "name": group.name,
        "version": group.version,
        "status": group.status.to_string(),
        "nodes": own.len(),
        "ready": ready,
        "cordoned": closed,
    }));
    // Without a run in the journal no mark is known to be eksup's.
    let Some(state) = state else { return Ok(()) };
    let run = &state.run;
    // From here on it is about what the run has left: each mark with the command that takes it off by hand.
    for taint in group
        .taints
        .iter()
        .filter(|t| t.key == marks::BLUE_TAINT && t.value.as_ref() == Some(run))
    {
        out.marks
            .push(format!("taint {} on node group {}", taint.key, group.name));
        out.commands.push(format!(
            "aws eks update-nodegroup-config --cluster-name {cluster} --nodegroup-name {} --taints 'removeTaints=[{{key={},value={run},effect={}}}]'",
            group.name, taint.key, taint.effect
        ));
    }
    // Only a largest size that is still below the one of before is the run's.
    let max = i64::from(group.scaling.max);
    if let Some(was) = sizes.get(&group.name).filter(|was| **was > max) {
        out.marks.push(format!(
            "{words} {} can grow to {max} nodes only, before the run to {was}",
            group.name
        ));
        out.commands.push(match group.source {
            NodeSource::ManagedGroup => format!(
                "aws eks update-nodegroup-config --cluster-name {cluster} --nodegroup-name {} --scaling-config maxSize={was}",
                group.name
            ),
            NodeSource::AutoScalingGroup => format!(
                "aws autoscaling update-auto-scaling-group --auto-scaling-group-name {} --max-size {was}",
                group.name
            ),
            // Its marks are told with the NodePools.
            NodeSource::NodePool => String::new(),
        });
    }
    for asg in aws.describe_asgs(&group.asgs).await?.into_values() {
        // The tag tells whose suspension it is: somebody may have suspended the process before.
        let is_ours = |tag: &str| asg.tags.iter().any(|t| t.key == tag && t.value == *run);
        for (process, tag) in marks::SUSPENDED_PROCESSES
            .iter()
            .filter(|(_, tag)| is_ours(tag))
        {
            out.marks
                .push(format!("{process} suspended in {}", asg.name));
            out.commands.push(format!(
                "aws autoscaling resume-processes --auto-scaling-group-name {} --scaling-processes {process}",
                asg.name
            ));
            out.commands.push(format!(
                "aws autoscaling delete-tags --tags ResourceId={},ResourceType=auto-scaling-group,Key={tag}",
                asg.name,
            ));
        }
    }
    // A green of a run that reached its goal is what the cluster runs on, and nothing that is left over.
    if group.tags.get(marks::RUN_TAG) == Some(run) && !has_reached_goal(state) {
        out.marks
            .push(format!("node group {}, made by this run", group.name));
    }
    Ok(())
}

/// Marks on nodes, each kind with one command for all of them.
fn add_node_marks(nodes: &[Node], run: &str, out: &mut LiveStatus) {
    let mut found: Vec<(&str, String, &str)> = Vec::new();
    for node in nodes {
        let name = node.name.as_str();
        // Marks carry the run's id, some with a time behind it. Those of other runs are theirs.
        let by_us = |key: &str| {
            let value = node.annotations.get(key);
            value.is_some_and(|v| v == run || v.starts_with(&format!("{run}@")))
        };
        // Two commands, as `kubectl uncordon` leaves the annotation.
        if by_us(marks::CORDONED) {
            found.push(("cordoned", "kubectl uncordon {}".to_owned(), name));
            let command = format!("kubectl annotate node {{}} {}-", marks::CORDONED);
            found.push(("", command, name));
        }
        let tainted = node
            .taints
            .iter()
            .any(|t| t.key == marks::BLUE_TAINT && t.value.as_deref() == Some(run));
        if tainted {
            let command = format!("kubectl taint node {{}} {}-", marks::BLUE_TAINT);
            found.push(("tainted", command, name));
        }
        // They only say how far a drain came, so taking them off is enough.
        for (key, what) in [
            (marks::DRAINING, "marked as being drained"),
            (marks::SKIPPED, "marked as skipped"),
        ] {
            if by_us(key) {
                found.push((what, format!("kubectl annotate node {{}} {key}-"), name));
            }
        }
        if by_us(marks::SCALE_DOWN_HELD) {
            let before = node.annotations.get(marks::SCALE_DOWN_BEFORE);
            found.push(("kept from scale-down", release_command(before), name));
        }
        let excluded = node.labels.get(marks::EXCLUDE_FROM_LB);
        if excluded.is_some_and(|v| v == EXCLUDE_LABEL_VALUE) {
            let command = format!("kubectl label node {{}} {}-", marks::EXCLUDE_FROM_LB);
            found.push(("out of controller-filled target groups", command, name));
        }
    }
    // One command for all nodes of a kind, as a person has to run it.
    let mut kinds: BTreeMap<(&str, String), Vec<&str>> = BTreeMap::new();
    for (what, command, name) in found {
        kinds.entry((what, command)).or_default().push(name);
    }
    for ((what, command), names) in kinds {
        if !what.is_empty() {
            out.marks
                .push(format!("nodes {what}: {}", names.join(", ")));
        }
        out.commands.push(command.replace("{}", &names.join(" ")));
    }
}

/// Releases a node to the autoscaler. A value that somebody had set before is put back, and not lost.
fn release_command(before: Option<&String>) -> String {
    let (held, disabled) = (marks::SCALE_DOWN_HELD, marks::SCALE_DOWN_DISABLED);
    match before {
        Some(before) => {
            let set = format!("{disabled}={before}");
            let set = shlex::try_quote(&set).map_or_else(|_| set.clone(), |q| q.into_owned());
            let kept = marks::SCALE_DOWN_BEFORE;
            format!("kubectl annotate node {{}} --overwrite {set} {held}- {kept}-")
        }
        None => format!("kubectl annotate node {{}} {held}- {disabled}-"),
    }
}

/// The weights of every rule of the run, and how they were.
async fn add_rules(
    reached: &ClusterConnection,
    state: Option<&RunState>,
    route: Option<&Route>,
    out: &mut LiveStatus,
) -> Result<(), ApiError> {
    // The rules of the route, each once, and their weights from the first before-image that still holds.
    let mut arns: Vec<String> = Vec::new();
    let mut before: BTreeMap<String, Vec<WeightedTargetGroup>> = BTreeMap::new();
    for step in route.iter().flat_map(|r| &r.steps) {
        let (StepSpec::Shift { shift, .. } | StepSpec::AddToRules { shift, .. }) = &step.spec
        else {
            continue;
        };
        for rule in &shift.rules {
            if !arns.contains(rule) {
                arns.push(rule.clone());
            }
        }
        let known = state.and_then(|s| s.find_step(&step.id));
        // After an undo the rule is as it was, so that step's image says nothing any more.
        let open = known.filter(|s| s.acts > 0 && s.status != StepStatus::Undone);
        if let Some(image) = open.and_then(|s| s.before.as_ref()) {
            let forwards: Vec<RuleForward> =
                serde_json::from_value(image.clone()).unwrap_or_default();
            for forward in forwards {
                // The first step of a rule has its first image.
                before.entry(forward.rule).or_insert(forward.forward);
            }
        }
    }
    if arns.is_empty() {
        return Ok(());
    }
    // Now against before: rules are read again, as the journal may be an act behind.
    let words = |forward: &[WeightedTargetGroup]| {
        let each: Vec<String> = forward
            .iter()
            .map(|f| format!("{} {}", short_name(&f.arn), f.weight))
            .collect();
        each.join(", ")
    };
    for rule in reached
        .aws
        .describe_rules_by_arn(&arns, BTreeMap::new())
        .await?
    {
        let was = before.get(&rule.arn).filter(|was| **was != rule.forward);
        out.data.rules.push(json!({
            "arn": rule.arn,
            "priority": rule.priority,
            "conditions": rule.conditions,
            "forward": forward_data(&rule.forward),
            "before": was.map(|was| forward_data(was)),
        }));
        let note = was
            .map(|was| format!(" (before the run: {})", words(was)))
            .unwrap_or_default();
        out.lines.push(format!(
            "rule {} {}: {}{note}",
            rule.priority,
            rule.conditions.join(" "),
            words(&rule.forward)
        ));
        // At the goal, changed weights are what was asked for and nothing that is left.
        if was.is_some() && !state.is_some_and(has_reached_goal) {
            out.marks
                .push(format!("weights of rule {}", short_rule(&rule.arn)));
        }
        // A rule that does more than forward is not put into a command: what it does besides would be lost.
        if let Some(was) = was
            && is_only_forward(&rule.rest)
        {
            out.commands.push(modify_rule_command(&rule, was));
        }
    }
    Ok(())
}

fn forward_data(forward: &[WeightedTargetGroup]) -> Value {
    let each = forward.iter();
    each.map(|f| json!({"targetGroup": f.arn, "weight": f.weight}))
        .collect()
}

fn is_only_forward(rest: &serde_json::Value) -> bool {
    rest.get("Actions")
        .and_then(|a| a.as_array())
        .is_some_and(|a| a.len() == 1)
}

fn modify_rule_command(rule: &ListenerRule, was: &[WeightedTargetGroup]) -> String {
    let groups: Vec<serde_json::Value> = was
        .iter()
        .map(|t| serde_json::json!({"TargetGroupArn": t.arn, "Weight": t.weight}))
        .collect();
    let mut forward = serde_json::json!({"TargetGroups": groups});
    // Without it the command would end the rule's stickiness.
    if let Some(seconds) = rule.stickiness_seconds {
        forward["TargetGroupStickinessConfig"] =
            serde_json::json!({"Enabled": true, "DurationSeconds": seconds});
    }
    let actions = serde_json::json!([{"Type": "forward", "ForwardConfig": forward}]);
    if rule.is_default {
        format!(
            "aws elbv2 modify-listener --listener-arn {} --default-actions '{actions}'",
            rule.listener
        )
    } else {
        format!(
            "aws elbv2 modify-rule --rule-arn {} --actions '{actions}'",
            rule.arn
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_that_releases_a_node_by_hand_puts_back_what_was_set_before() {
        assert!(release_command(None).ends_with("scale-down-disabled-"));
        let command = release_command(Some(&"false".to_owned()));
        assert!(command.contains("--overwrite") && command.contains("scale-down-disabled=false"));
    }
}
