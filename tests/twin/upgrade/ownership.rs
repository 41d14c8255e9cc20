//! Who owns what blue serves: controllers' target groups, classic load balancers, targets that were registered one by one,
//! and pods that answer on ports of their own nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::Inventory;
use eksup::model::eks::NodegroupChange;
use eksup::model::elb::{ClassicBalancer, TargetHealth};
use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;
use serde_json::{Value, json};

use super::EXPENSE;
use crate::support::process_rig::Rig;

/// No route: green joins what blue serves.
const SHARED: &str = "cluster: expense-dev\nregion: us-east-1\nto: 1.28\nnodeGroups: [{blue: expense-blue, green: expense-green}]\ndrain: {bake: 10s}\nretire: {soak: 1m}\ncontrolPlane: {bake: 10s}\n";
const SERVICES: &str = "/api/v1/services";

fn group_arn(inventory: &Inventory, name: &str) -> String {
    let mut groups = inventory.target_groups.iter();
    groups.find(|g| g.name == name).unwrap().arn.clone()
}

/// Instances of a node group.
fn instances(inventory: &Inventory, group: &str) -> BTreeSet<String> {
    let asgs = inventory.asgs_of(group);
    asgs.flat_map(|a| a.instances.iter().map(|i| i.id.clone()))
        .collect()
}

/// Who is healthy there.
fn healthy(inventory: &Inventory, served: &str) -> BTreeSet<String> {
    let targets = inventory.target_health[served].iter();
    let healthy = targets.filter(|t| t.state.as_str() == "healthy");
    healthy.map(|t| t.id.clone()).collect()
}

/// What green's Auto Scaling group fills.
fn green_fills(inventory: &Inventory) -> Vec<String> {
    let asgs = inventory.asgs_of("expense-green");
    asgs.flat_map(|a| a.registration_targets().cloned())
        .collect()
}

/// Blue's instances are in its target group, and its Auto Scaling group is not attached.
fn by_hand() -> Snapshot {
    let mut snapshot = scenario::expense_dev();
    let asgs = snapshot.inventory.asgs.values_mut();
    asgs.for_each(|a| a.target_groups.clear());
    snapshot
}

fn tags<const N: usize>(tags: [(&str, &str); N]) -> BTreeMap<String, String> {
    tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn service_tags() -> BTreeMap<String, String> {
    tags([
        ("kubernetes.io/service-name", "expense/frontend"),
        ("kubernetes.io/cluster/expense-dev", "owned"),
    ])
}

/// The Service `frontend`, changed.
fn change_service(snapshot: &mut Snapshot, change: impl Fn(&mut Value)) {
    let services = snapshot.kubernetes.get_mut(SERVICES).unwrap();
    let frontend = |s: &&mut Value| s["metadata"]["name"] == "frontend";
    change(services.iter_mut().find(frontend).unwrap());
}

/// The cloud provider made the target group for the Service `frontend`, and fills it.
fn of_service() -> Snapshot {
    let mut snapshot = by_hand();
    let groups = &mut snapshot.inventory.target_groups;
    let blue = groups.iter_mut().find(|g| g.name == "expense-blue-tg");
    blue.unwrap().tags = service_tags();
    change_service(&mut snapshot, |s| s["spec"]["type"] = json!("LoadBalancer"));
    snapshot
}

/// A classic load balancer in front of the node port, with `registered` in it.
fn classic(snapshot: &mut Snapshot, tags: BTreeMap<String, String>, registered: &BTreeSet<String>) {
    let inventory = &mut snapshot.inventory;
    inventory.classic_balancers.push(ClassicBalancer {
        name: "old".to_owned(),
        vpc: inventory.cluster.vpc_id.clone(),
        zones: vec!["us-east-1a".to_owned()],
        instance_ports: vec![30080],
        tags,
    });
    let target = |id: &String| TargetHealth {
        id: id.clone(),
        port: None,
        zone: None,
        state: "healthy".into(),
        reason: None,
    };
    let targets = registered.iter().map(target).collect();
    inventory.target_health.insert("old".to_owned(), targets);
}

#[tokio::test(start_paused = true)]
async fn what_was_registered_one_by_one_is_deregistered_one_by_one() {
    let rig = Rig::new(&by_hand(), SHARED, 7);
    let arn = group_arn(&rig.read().await, "expense-blue-tg");
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert_eq!(green_fills(&after), std::slice::from_ref(&arn));
    assert_eq!(healthy(&after, &arn), instances(&after, "expense-green"));
    let log = rig.log();
    assert!(
        !log.contains("(healthy)") || !log.contains("draining: i-"),
        "{log}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_rollback_registers_again_what_was_registered_one_by_one() {
    let rig = Rig::new(&by_hand(), SHARED, 7);
    let before = rig.read().await;
    let arn = group_arn(&before, "expense-blue-tg");
    let paused = rig.apply_until("detach-expense-blue-expense-blue-tg").await;
    assert!(
        matches!(paused, RunOutcome::Paused { .. }),
        "{paused:?}\n{}",
        rig.log()
    );
    let blue = instances(&before, "expense-blue");
    assert!(healthy(&rig.read().await, &arn).is_disjoint(&blue));
    let back = rig.rollback().await.unwrap();
    assert!(
        matches!(back, RunOutcome::RolledBack { .. }),
        "{back:?}\n{}",
        rig.log()
    );
    let after = rig.read().await;
    assert_eq!(healthy(&after, &arn), blue);
    assert!(
        after
            .asgs_of("expense-blue")
            .all(|a| a.target_groups.is_empty())
    );
}

#[tokio::test(start_paused = true)]
async fn of_a_pair_too_blue_leaves_one_by_one_before_it_is_retired() {
    let rig = Rig::new(&by_hand(), EXPENSE, 7);
    let arn = group_arn(&rig.read().await, "expense-blue-tg");
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert!(
        after.target_health[&arn].is_empty(),
        "{:?}",
        after.target_health
    );
    assert!(rig.log().contains("deregister i-"), "{}", rig.log());
}

#[tokio::test(start_paused = true)]
async fn the_target_group_of_a_service_is_left_to_the_cloud_provider() {
    let rig = Rig::new(&of_service(), SHARED, 7);
    let arn = group_arn(&rig.read().await, "expense-blue-tg");
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert!(green_fills(&after).is_empty());
    assert_eq!(healthy(&after, &arn), instances(&after, "expense-green"));
}

#[tokio::test(start_paused = true)]
async fn no_blue_node_leaves_what_a_controller_fills_before_it_has_registered_green() {
    let rig = Rig::new(&of_service(), SHARED, 7);
    let before = rig.read().await;
    let arn = group_arn(&before, "expense-blue-tg");
    // It takes blue's nodes only, and nothing that can be read says so.
    rig.twin.with_world(|world| {
        let controller = world.cloud.switches.controller.as_mut().unwrap();
        let binding = controller.bindings.get_mut(&arn).unwrap();
        binding.node_selector = tags([("eks.amazonaws.com/nodegroup", "expense-blue")]);
    });
    let ended = rig.apply().await;
    let RunOutcome::Stuck { step, why, .. } = &ended else {
        panic!("{ended:?}\n{}", rig.log())
    };
    assert_eq!(step, "drain-expense-blue");
    assert!(
        why.contains("expense-blue-tg") && why.contains("registered no node of green"),
        "{why}"
    );
    let now = rig.read().await;
    assert_eq!(healthy(&now, &arn), instances(&before, "expense-blue"));
}

#[tokio::test(start_paused = true)]
async fn a_group_attached_to_what_a_service_has_launches_nothing_once_the_service_is_gone() {
    let snapshot = of_service();
    let arn = group_arn(&snapshot.inventory, "expense-blue-tg");
    let rig = Rig::new(&snapshot, SHARED, 7);
    let reached = rig.reached().await;
    let asg = rig
        .read()
        .await
        .find_nodegroup("expense-blue")
        .unwrap()
        .asgs[0]
        .clone();
    let arns = [arn.clone()];
    reached.aws.attach_served(&asg, &arns).await.unwrap();
    let request = http::Request::delete("/api/v1/namespaces/expense/services/frontend");
    let request = request.body(Vec::new()).unwrap();
    reached.kube.client.request::<Value>(request).await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(reached.aws.describe_registered_targets(&arn).await.is_err());
    let more = NodegroupChange {
        desired: Some(4),
        ..NodegroupChange::default()
    };
    let asked = reached
        .aws
        .update_nodegroup("expense-dev", "expense-blue", &more, "more");
    asked.await.unwrap();
    tokio::time::sleep(Duration::from_secs(300)).await;
    rig.twin.with_world(|world| {
        let group = &world.cloud.asgs[&asg];
        assert_eq!(group.members.len(), 3);
        let failure = group.failed_launch.as_deref().unwrap_or_default();
        assert!(failure.contains("target groups not found"), "{failure}");
    });
}

#[tokio::test(start_paused = true)]
async fn green_joins_a_classic_load_balancer_and_blue_leaves_it() {
    let mut snapshot = scenario::expense_dev();
    let blue = instances(&snapshot.inventory, "expense-blue");
    classic(&mut snapshot, tags([]), &blue);
    let asgs = snapshot.inventory.asgs.values_mut();
    asgs.for_each(|a| a.load_balancers.push("old".to_owned()));
    let rig = Rig::new(&snapshot, EXPENSE, 7);
    let paused = rig.apply_until("detach-expense-blue-old").await;
    assert!(
        matches!(paused, RunOutcome::Paused { .. }),
        "{paused:?}\n{}",
        rig.log()
    );
    let now = rig.read().await;
    assert_eq!(healthy(&now, "old"), instances(&now, "expense-green"));
    let back = rig.rollback().await.unwrap();
    assert!(
        matches!(back, RunOutcome::RolledBack { .. }),
        "{back:?}\n{}",
        rig.log()
    );
    assert_eq!(healthy(&rig.read().await, "old"), blue);

    let rig = Rig::new(&snapshot, EXPENSE, 8);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert!(green_fills(&after).contains(&"old".to_owned()));
    assert_eq!(healthy(&after, "old"), instances(&after, "expense-green"));
}

#[tokio::test(start_paused = true)]
async fn the_classic_load_balancer_of_a_service_is_left_to_the_cloud_provider() {
    let mut snapshot = scenario::expense_dev();
    let blue = instances(&snapshot.inventory, "expense-blue");
    classic(&mut snapshot, service_tags(), &blue);
    change_service(&mut snapshot, |s| s["spec"]["type"] = json!("LoadBalancer"));
    let rig = Rig::new(&snapshot, EXPENSE, 7);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let after = rig.read().await;
    assert!(!green_fills(&after).contains(&"old".to_owned()));
    assert_eq!(healthy(&after, "old"), instances(&after, "expense-green"));
}

/// `frontend` answers on port 30080 of its own nodes, and no node forwards to it.
fn on_host_ports() -> Snapshot {
    let mut snapshot = scenario::expense_dev();
    change_service(&mut snapshot, |s| {
        s["spec"]["type"] = json!("ClusterIP");
        s["spec"]["ports"][0]
            .as_object_mut()
            .unwrap()
            .remove("nodePort");
    });
    let ports = json!([{"containerPort": 8080, "hostPort": 30080, "protocol": "TCP"}]);
    let of_frontend = |o: &Value| {
        let name = o["metadata"]["name"].as_str().unwrap_or_default();
        o["metadata"]["namespace"] == "expense" && name.starts_with("frontend")
    };
    for path in ["/apis/apps/v1/deployments", "/apis/apps/v1/replicasets"] {
        let list = snapshot.kubernetes.get_mut(path).unwrap().iter_mut();
        for object in list.filter(|o| of_frontend(o)) {
            object["spec"]["template"]["spec"]["containers"][0]["ports"] = ports.clone();
        }
    }
    let pods = snapshot.kubernetes.get_mut("/api/v1/pods").unwrap();
    let mut serving = BTreeSet::new();
    for pod in pods.iter_mut().filter(|p| of_frontend(p)) {
        pod["spec"]["containers"][0]["ports"] = ports.clone();
        serving.insert(pod["spec"]["nodeName"].as_str().unwrap().to_owned());
    }
    let nodes = snapshot.kubernetes["/api/v1/nodes"].iter();
    let bare = nodes.filter(|n| !serving.contains(n["metadata"]["name"].as_str().unwrap()));
    let bare: BTreeSet<String> = bare
        .filter_map(|n| {
            n["spec"]["providerID"]
                .as_str()?
                .rsplit('/')
                .next()
                .map(str::to_owned)
        })
        .collect();
    let targets = snapshot.inventory.target_health.values_mut().flatten();
    for target in targets.filter(|t| bare.contains(&t.id)) {
        target.state = "unhealthy".into();
        target.reason = Some("Target.FailedHealthChecks".to_owned());
    }
    snapshot
}

#[tokio::test(start_paused = true)]
async fn pods_on_host_ports_move_first_and_their_nodes_leave_before_them() {
    let rig = Rig::new(&on_host_ports(), EXPENSE, 7);
    assert_eq!(rig.apply().await, RunOutcome::Done, "{}", rig.log());
    let log = rig.log();
    let place = |what: &str| log.find(what).unwrap_or_else(|| panic!("{what} in {log}"));
    // The shift begins after the last node has left.
    let last = log
        .rfind("deregister i-")
        .unwrap_or_else(|| panic!("{log}"));
    assert!(last < place("    shift-expense-green-tg: "), "{log}");
    let after = rig.read().await;
    let arn = group_arn(&after, "expense-green-tg");
    // As many nodes as pods.
    assert_eq!(healthy(&after, &arn).len(), 2, "{:?}", after.target_health);
}
