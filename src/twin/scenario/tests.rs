use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::model::snapshot::{SNAPSHOT_API_VERSION, SNAPSHOT_KIND};
use crate::twin::Twin;
use crate::twin::k8s::cloud_hooks;

fn names(snapshot: &Snapshot, path: &str) -> Vec<String> {
    let name = |o: &Value| {
        o.pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    snapshot
        .kubernetes
        .get(path)
        .into_iter()
        .flatten()
        .map(name)
        .collect()
}

#[test]
fn every_bundled_scenario_is_a_snapshot_that_survives_a_file() {
    for (name, _) in bundled_scenarios().filter(|(name, _)| *name != "fleet-1000") {
        let snapshot = find_scenario(name).unwrap();
        assert_eq!(
            (snapshot.api_version.as_str(), snapshot.kind.as_str()),
            (SNAPSHOT_API_VERSION, SNAPSHOT_KIND),
            "{name}"
        );
        let again: Snapshot =
            serde_json::from_str(&serde_json::to_string(&snapshot).unwrap()).unwrap();
        assert_eq!(
            again.inventory.cluster, snapshot.inventory.cluster,
            "{name}"
        );
        let nodes = names(&snapshot, "/api/v1/nodes");
        let instances = nodes.iter().filter(|n| !n.starts_with("fargate-"));
        assert_eq!(
            instances.count(),
            snapshot.inventory.instances.len(),
            "{name}"
        );
        assert_eq!(
            nodes.iter().collect::<BTreeSet<_>>().len(),
            nodes.len(),
            "{name}"
        );
        let pods = names(&snapshot, "/api/v1/pods");
        assert_eq!(
            pods.iter().collect::<BTreeSet<_>>().len(),
            pods.len(),
            "{name}"
        );
    }
    assert!(find_scenario("nope").is_none());
}

#[tokio::test(start_paused = true)]
async fn every_bundled_scenario_stands_still_when_nobody_touches_it() {
    for (name, _) in bundled_scenarios().filter(|(name, _)| *name != "fleet-1000") {
        let snapshot = find_scenario(name).unwrap();
        let twin = Twin::start(load_world(&snapshot, 1));
        let pods = |twin: &Twin| {
            twin.with_world(|w| {
                cloud_hooks::node_names(w)
                    .iter()
                    .flat_map(|n| cloud_hooks::pods_on(w, n))
                    .map(|p| (p.ns, p.name, p.ready))
                    .collect::<Vec<_>>()
            })
        };
        let before = pods(&twin);
        tokio::time::sleep(Duration::from_secs(1800)).await;
        let after = pods(&twin);
        assert_eq!(before.len(), after.len(), "{name}");
        assert_eq!(before, after, "{name}");
        assert!(after.iter().all(|(_, _, ready)| *ready), "{name}");
        let running = twin.with_world(|w| {
            w.cloud
                .instances
                .values()
                .filter(|i| i.state == "running")
                .count()
        });
        assert_eq!(running, snapshot.inventory.instances.len(), "{name}");
    }
}

#[test]
fn the_multi_hop_catalogue_has_a_way_from_every_minor_to_the_next() {
    let inventory = find_scenario("multi-hop").unwrap().inventory;
    for (name, minors) in &inventory.addon_catalog {
        for (minor, offers) in minors {
            assert_eq!(
                offers.iter().filter(|o| o.default).count(),
                1,
                "{name} {minor}"
            );
            let next = minors.get(&minor.next());
            assert!(
                next.is_none_or(|next| offers
                    .iter()
                    .any(|o| next.iter().any(|n| n.version == o.version))),
                "{name} {minor}"
            );
        }
    }
    assert!(
        inventory
            .cluster_versions
            .iter()
            .any(|v| v.version == inventory.cluster.version)
    );
}

#[tokio::test(start_paused = true)]
async fn a_controller_takes_its_rule_back_and_follows_the_nodes() {
    let twin = Twin::start(load_world(&find_scenario("controller-ingress").unwrap(), 1));
    let rule = |twin: &Twin| {
        twin.with_world(|w| {
            w.cloud
                .elb
                .rules
                .values()
                .find(|r| !r.default)
                .unwrap()
                .clone()
        })
    };
    let targets = |twin: &Twin| {
        twin.with_world(|w| {
            w.cloud
                .elb
                .groups
                .values()
                .find(|g| g.name == "expense-blue-tg")
                .unwrap()
                .targets
                .values()
                .filter(|t| t.state != crate::twin::aws::ElbTargetState::Draining)
                .count()
        })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(targets(&twin), 3);
    let wanted = rule(&twin);
    twin.with_world(|w| {
        let node = cloud_hooks::node_names(w).remove(0);
        let excluded = std::collections::BTreeMap::from([(
            "node.kubernetes.io/exclude-from-external-load-balancers".to_owned(),
            "true".to_owned(),
        )]);
        cloud_hooks::set_group_marks(w, "expense-blue", &[], &[], &excluded, &[]);
        node
    });
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(targets(&twin), 0);
    let green = twin.with_world(|w| {
        w.cloud
            .elb
            .groups
            .values()
            .find(|g| g.name == "expense-green-tg")
            .unwrap()
            .arn
            .clone()
    });
    let body = format!(
        "Action=ModifyRule&RuleArn={}&Actions.member.1.Type=forward&Actions.member.1.TargetGroupArn={green}",
        wanted.arn
    );
    let request = http::Request::builder()
        .method("POST")
        .uri("https://elasticloadbalancing.us-east-1.amazonaws.com/")
        .header("authorization", "AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/elasticloadbalancing/aws4_request, SignedHeaders=host, Signature=00")
        .body(bytes::Bytes::from(body))
        .unwrap();
    assert_eq!(
        tower::ServiceExt::oneshot(twin.wire(), request)
            .await
            .unwrap()
            .status(),
        200
    );
    assert_ne!(rule(&twin).actions, wanted.actions);
    // It does not watch ELB: the change of a Service makes it look (LBC-2).
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_ne!(rule(&twin).actions, wanted.actions);
    twin.with_world(crate::twin::k8s::balancer_controller::label_services);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(rule(&twin).actions, wanted.actions);
}

#[tokio::test]
async fn the_account_is_made_before_the_lists_are_taken_out_of_the_snapshot() {
    for (name, _) in bundled_scenarios() {
        let mut snapshot = find_scenario(name).unwrap();
        if name.starts_with("fleet") {
            continue;
        }
        let kept = load_world(&snapshot, 1);
        let taken = take_world(&mut snapshot, 1);
        assert!(snapshot.kubernetes.is_empty());
        let account = |world: &SimWorld| format!("{:?}", world.cloud);
        assert_eq!(account(&taken), account(&kept), "{name}");
    }
}

#[test]
fn clusters_of_other_names_have_no_instance_in_common() {
    let mut owners = std::collections::BTreeMap::new();
    for (name, _, make) in super::BUNDLED_SCENARIOS {
        let snapshot = make();
        let cluster = &snapshot.inventory.cluster.name;
        for instance in &snapshot.inventory.instances {
            let owner = owners.entry(instance.id.clone()).or_insert(cluster.clone());
            assert_eq!(owner, cluster, "{name}: {}", instance.id);
        }
    }
}

#[test]
fn a_fleet_has_as_many_nodes_and_pods_as_were_asked_for() {
    let snapshot = fleet_snapshot(30, 10);
    assert_eq!(names(&snapshot, "/api/v1/nodes").len(), 30);
    let own = names(&snapshot, "/api/v1/pods")
        .iter()
        .filter(|n| n.starts_with("app-"))
        .count();
    assert_eq!(own, 300);
    assert_eq!(
        snapshot
            .inventory
            .asgs
            .values()
            .next()
            .unwrap()
            .instances
            .len(),
        30
    );
}

#[tokio::test(start_paused = true)]
#[ignore = "a measure, for release builds"]
async fn a_thousand_nodes_stand_for_an_hour() {
    let twin = Twin::start(load_world(&fleet_snapshot(1000, 10), 1));
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(twin.with_world(|w| cloud_hooks::node_names(w).len()), 1000);
}
