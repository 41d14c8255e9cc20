//! The inventory and the snapshot, read from the twin with real clients.

use std::time::Duration;

use eksup::aws::AwsApi;
use eksup::aws::elb::RuleWritten;
use eksup::inventory::{self, connect, snapshot};
use eksup::k8s::{KubeApi, WatchCache};
use eksup::model::asg::{EKS_HOOKS, GroupAutomation};
use eksup::model::cni::CniSettings;
use eksup::model::elb::WeightedTargetGroup;
use eksup::model::snapshot::Snapshot;
use eksup::model::{Clock, ErrorClass, Inventory, Minor, Timestamp};
use eksup::ready::{self, Finding, Severity};
use eksup::twin::{Twin, fault, scenario};

struct Reading {
    twin: Twin,
    aws: AwsApi,
    kube: KubeApi,
    clock: Clock,
    name: String,
}

impl Reading {
    async fn of(snapshot: &Snapshot) -> Self {
        fastrand::seed(1);
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let twin = Twin::start(scenario::load_world(snapshot, 1));
        let aws = AwsApi::over_wire(twin.wire(), &snapshot.inventory.region, &clock);
        let name = snapshot.inventory.cluster.name.clone();
        let cluster = connect::find_cluster(&aws, &name).await.unwrap();
        let kube = connect::connect_over_wire(&aws, &cluster, &clock, twin.wire()).unwrap();
        Self {
            twin,
            aws,
            kube,
            clock,
            name,
        }
    }

    fn fault(&self, rule: &str) {
        let rules = vec![rule.parse().unwrap()];
        self.twin.with_world(|world| fault::add_rules(world, rules));
    }

    async fn read(&self) -> Result<Inventory, eksup::model::ApiError> {
        inventory::read_inventory(
            &self.aws,
            &self.kube,
            &self.name,
            Some(Minor::new(29)),
            &self.clock,
        )
        .await
    }
}

/// Times as EKS sends them, which is to the millisecond.
fn to_the_millisecond(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) => {
            if let Ok(at) = text.parse::<Timestamp>() {
                *text = Timestamp::from_millisecond(at.as_millisecond())
                    .unwrap()
                    .to_string();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(to_the_millisecond),
        Value::Object(fields) => fields.values_mut().for_each(to_the_millisecond),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What AWS says, without what differs from one reading to the next by its nature.
fn of_aws(inventory: Inventory) -> serde_json::Value {
    let mut value = serde_json::to_value(inventory).unwrap();
    let fields = value.as_object_mut().unwrap();
    for kubernetes in [
        "nodes",
        "pods",
        "pdbs",
        "workloads",
        "services",
        "volumes",
        "attachments",
        "targetGroupBindings",
        "webhooks",
        "namespaces",
        "cni",
        "eniConfigs",
    ] {
        fields.remove(kubernetes);
    }
    // The bundled snapshots were taken before these were read.
    for later in ["interfaceLimits", "limits", "podIdentities"] {
        fields.remove(later);
    }
    for asg in fields["asgs"].as_object_mut().unwrap().values_mut() {
        for later in ["Subnets", "Launch"] {
            asg.as_object_mut().unwrap().remove(later);
        }
    }
    fields["cluster"]
        .as_object_mut()
        .unwrap()
        .remove("ipFamily");
    for passing in ["takenAt", "serverVersion"] {
        fields.remove(passing);
    }
    to_the_millisecond(&mut value);
    value
}

#[tokio::test(start_paused = true)]
async fn a_cluster_is_read_as_the_snapshot_says_it() {
    let snapshot = scenario::expense_dev();
    let reading = Reading::of(&snapshot).await;
    let read = reading.read().await.unwrap();
    assert_eq!(read.unread, []);
    assert_eq!(read.server_version, Some(Minor::new(27)));
    assert_eq!(
        (
            read.nodes.len(),
            read.pdbs.len(),
            read.services.len(),
            read.volumes.len(),
            read.attachments.len()
        ),
        (3, 3, 4, 1, 1)
    );
    assert!(read.pods.len() >= 18 && read.workloads.iter().any(|w| w.kind == "StatefulSet"));
    assert_eq!(read.cni, Some(CniSettings::default()));
    assert_eq!(read.cluster.ip_family.as_deref(), Some("ipv4"));
    let limits = read.interface_limits["t3.large"];
    assert_eq!((limits.interfaces, limits.addresses), (3, 12));
    assert_eq!(
        read.namespaces["expense"]["kubernetes.io/metadata.name"],
        "expense"
    );
    assert_eq!(read.nodes_of("expense-blue").count(), 3);
    assert!(read.nodes.iter().all(|n| {
        read.instances
            .iter()
            .any(|i| Some(i.id.as_str()) == n.instance_id())
    }));
    let minors: Vec<Minor> = read.addon_catalog["coredns"].keys().copied().collect();
    assert_eq!(minors, [Minor::new(27), Minor::new(28), Minor::new(29)]);

    let mut given = snapshot.inventory;
    // The bundled snapshot is older than the field; the twin's groups have not been changed since they were made.
    for group in &mut given.nodegroups {
        group.modified_at = group.created_at;
    }
    for asg in given.asgs.values_mut() {
        asg.tags.sort();
        // The bundled snapshot is older than the field.
        asg.arn.clone_from(&read.asgs[&asg.name].arn);
        assert!(asg.arn.as_ref().unwrap().ends_with(&asg.name));
    }
    // It is older than this field, too: its groups have the hooks of EKS itself and no others.
    let hooks = read.lifecycle_hooks.values().flatten();
    assert!(hooks.clone().next().is_some());
    for hook in hooks {
        assert!(EKS_HOOKS.contains(&hook.name.as_str()), "{hook:?}");
    }
    given.lifecycle_hooks.clone_from(&read.lifecycle_hooks);
    let mut automation = read.group_automation.values();
    assert!(!read.group_automation.is_empty());
    assert!(automation.all(|a| *a == GroupAutomation::default()));
    given.group_automation.clone_from(&read.group_automation);
    given
        .target_health
        .values_mut()
        .for_each(|targets| targets.sort());
    given.subnets.sort_by(|a, b| a.id.cmp(&b.id));
    given.instances.sort_by(|a, b| a.id.cmp(&b.id));
    given.target_groups.sort_by(|a, b| a.arn.cmp(&b.arn));
    let (said, mut given) = (of_aws(read), of_aws(given));
    // The bundled catalogue also has an add-on that is not installed, which nobody asks for.
    given["addonCatalog"]
        .as_object_mut()
        .unwrap()
        .remove("eks-pod-identity-agent");
    // AWS answers the values of a condition in two places; the bundled snapshot has them in one.
    given["rules"][0]["Rest"]["Conditions"][0]["PathPatternConfig"] =
        serde_json::json!({ "Values": ["/*"] });
    // The bundled snapshot is older than these readings; no service account of its cluster names a role.
    given["accountsWithRole"] = serde_json::json!([]);
    given["priorityClasses"] =
        serde_json::json!(["system-cluster-critical", "system-node-critical"]);
    given["resourceQuotas"] = serde_json::json!([]);
    given["limitDefaults"] = serde_json::json!({});
    for (field, value) in given.as_object().unwrap() {
        assert_eq!(&said[field], value, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_a_twin_starts_a_twin_that_reads_the_same() {
    let first = Reading::of(&scenario::expense_dev()).await;
    let before = first.read().await.unwrap();
    let taken = snapshot::take_snapshot(&first.kube, before.clone())
        .await
        .unwrap();
    let text = serde_json::to_string(&taken).unwrap();
    assert!(!text.contains("managedFields") && !text.contains("last-applied-configuration"));
    let second = Reading::of(&snapshot::parse_snapshot(&text).unwrap()).await;
    let after = second.read().await.unwrap();
    let names = |i: &Inventory| i.pods.iter().map(|p| p.key.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    assert_eq!(after.nodes.len(), before.nodes.len());
    assert_eq!(of_aws(after), of_aws(before));
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_read_is_named_and_the_rest_is_read() {
    let reading = Reading::of(&scenario::expense_dev()).await;
    reading.fault("denied:elb:*:*");
    reading.fault("denied:eks:ListInsights:*");
    reading.fault("denied:k8s:GET services:*");
    let read = reading.read().await.unwrap();
    let ops: Vec<&str> = read.unread.iter().map(|u| u.op.as_str()).collect();
    assert_eq!(
        ops,
        [
            "eks:ListInsights",
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeTargetGroups",
            "list services"
        ]
    );
    assert!(read.insights.is_empty() && read.load_balancers.is_empty() && read.services.is_empty());
    assert_eq!(
        (read.nodes.len(), read.asgs.len(), read.addons.len()),
        (3, 1, 4)
    );
}

/// What `eksup plan` says of what was read, for a plan that names no rule.
fn judged(read: &Inventory) -> (bool, Vec<Finding>) {
    let name = &read.cluster.name;
    let text = format!("cluster: {name}\nto: 1.29\n");
    let plan = eksup::plan::parse_plan("plan.yaml", &text).unwrap();
    let route = eksup::route::build_route(&plan, read);
    let blocking = ready::check_readiness(&plan, read, &route)
        .into_iter()
        .filter(|f| f.severity == Severity::Blocker)
        .collect();
    let attaches = route.is_ok_and(|r| r.steps.iter().any(|s| s.id.starts_with("attach-")));
    (attaches, blocking)
}

#[tokio::test(start_paused = true)]
async fn a_plan_made_while_one_call_about_load_balancers_was_denied_is_refused() {
    let reading = Reading::of(&scenario::expense_dev()).await;
    let (attaches, blocking) = judged(&reading.read().await.unwrap());
    assert!(attaches && blocking.is_empty(), "{blocking:?}");
    for call in [
        "DescribeLoadBalancers",
        "DescribeListeners",
        "DescribeRules",
        "DescribeTargetGroups",
        "DescribeTargetGroupAttributes",
        "DescribeTargetHealth",
        "DescribeTags",
    ] {
        let reading = Reading::of(&scenario::expense_dev()).await;
        reading.fault(&format!("denied:elb:{call}:1"));
        let (_, blocking) = judged(&reading.read().await.unwrap());
        let named = format!("elasticloadbalancing:{call}");
        assert!(
            blocking
                .iter()
                .any(|f| f.code == "EKSUP-U001" && f.subject == named),
            "{call}: {blocking:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_group_deleted_between_two_calls_leaves_blues_own_in_the_route() {
    for call in [
        "DescribeTags",
        "DescribeTargetGroupAttributes",
        "DescribeTargetHealth",
    ] {
        let mut snapshot = scenario::expense_dev();
        let mut other = snapshot.inventory.target_groups[0].clone();
        other.arn = other.arn.replace("targetgroup/", "targetgroup/another-");
        other.name = format!("another-{}", other.name);
        other.load_balancers.clear();
        let gone = other.arn.clone();
        snapshot.inventory.target_groups.push(other);
        let mut reading = Reading::of(&snapshot).await;
        // Another team deletes its group when the call about it is on its way.
        let (twin, inner) = (reading.twin.clone(), reading.twin.wire());
        let (action, arn) = (format!("Action={call}&"), gone.clone());
        let wire =
            eksup::wire::Wire::new(tower::service_fn(move |request: eksup::wire::Request| {
                if String::from_utf8_lossy(request.body()).contains(&action) {
                    twin.with_world(|world| world.cloud.elb.groups.remove(&arn));
                }
                tower::ServiceExt::oneshot(inner.clone(), request)
            }));
        let region = &snapshot.inventory.region;
        reading.aws = AwsApi::over_wire(wire, region, &reading.clock);
        let read = reading.read().await.unwrap();
        assert_eq!(read.unread, [], "{call}");
        assert!(read.target_groups.iter().all(|g| g.arn != gone), "{call}");
        let (attaches, blocking) = judged(&read);
        assert!(attaches && blocking.is_empty(), "{call}: {blocking:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_be_read_and_what_may_pass_fail_the_whole() {
    for (rule, class) in [
        ("denied:k8s:GET pods:*", ErrorClass::Denied),
        ("denied:eks:DescribeNodegroup:*", ErrorClass::Denied),
        ("expired:elb:*:*", ErrorClass::Expired),
        ("throttle:asg:*:*", ErrorClass::Throttled),
        ("fail:ec2:*:*", ErrorClass::Transient),
        ("expired:k8s:*:*", ErrorClass::Expired),
    ] {
        let reading = Reading::of(&scenario::expense_dev()).await;
        reading.fault(rule);
        let met = reading
            .read()
            .await
            .map(|read| read.unread)
            .map_err(|e| e.class);
        assert_eq!(met, Err(class), "{rule}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_blip_is_ridden_out() {
    let reading = Reading::of(&scenario::expense_dev()).await;
    for rule in [
        "throttle:asg:*:2",
        "fail:eks:DescribeCluster:1",
        "drop-before:ec2:*:1",
        "expired:k8s:*:1",
    ] {
        reading.fault(rule);
    }
    assert_eq!(reading.read().await.unwrap().unread, []);
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_is_not_there_is_answered_with_those_that_are() {
    let reading = Reading::of(&scenario::expense_dev()).await;
    let error = connect::find_cluster(&reading.aws, "expense-prod")
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::Absent);
    assert!(
        error
            .message
            .contains("`expense-prod` in region `us-east-1`; there are `expense-dev`"),
        "{}",
        error.message
    );
}

#[tokio::test(start_paused = true)]
async fn weights_are_shifted_and_nothing_else_of_the_rule_changes() {
    let reading = Reading::of(&scenario::expense_dev()).await;
    let read = reading.read().await.unwrap();
    let before = read.rules.iter().find(|r| !r.is_default).unwrap();
    let forward: Vec<WeightedTargetGroup> = read
        .target_groups
        .iter()
        .zip([75, 25])
        .map(|(g, weight)| WeightedTargetGroup {
            arn: g.arn.clone(),
            weight,
        })
        .collect();
    let written = reading
        .aws
        .set_forward_weights(&before.arn, &before.forward, &forward)
        .await;
    assert_eq!(written.unwrap(), RuleWritten::AsAsked);
    let after = reading
        .aws
        .describe_rules_by_arn(std::slice::from_ref(&before.arn), Default::default())
        .await
        .unwrap()
        .remove(0);
    assert_eq!(after.forward, forward);
    assert_eq!(
        (&after.rest, &after.conditions, &after.priority),
        (&before.rest, &before.conditions, &before.priority)
    );
}

#[tokio::test(start_paused = true)]
async fn the_cache_knows_what_the_lists_know_and_hears_of_a_cordon() {
    let reading = Reading::of(&scenario::expense_dev()).await;
    let cache = WatchCache::start_watches(&reading.kube);
    let patience = Duration::from_secs(30);
    let known = cache.read_current(patience).await.unwrap();
    let listed = reading.kube.list_pods().await.unwrap();
    assert_eq!(known.pods.len(), listed.len());
    let node = known.nodes.values().next().unwrap().clone();
    let change = eksup::k8s::node::NodeChange {
        unschedulable: Some(true),
        ..Default::default()
    };
    reading.kube.change_node(&node, &change).await.unwrap();
    let again = reading.kube.change_node(&node, &change).await.unwrap_err();
    assert_eq!(
        again.class,
        ErrorClass::Conflict,
        "it was changed since it was read"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cache.read_current(patience).await.unwrap().nodes[&node.name].unschedulable);
    // Two hours of nothing, with watches that end and begin again all the while.
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    assert_eq!(
        cache
            .read_current(Duration::ZERO)
            .await
            .unwrap()
            .nodes
            .len(),
        3
    );
}
