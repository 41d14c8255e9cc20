//! Budgets that an operator runs, what is sick before the run, and replacements that would not come up.

use super::tests::{judged, of, only, paired, with};
use super::*;
use crate::model::Inventory;
use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::HealthIssue;
use crate::model::kube::{NamespacedName, Owner, Pod, Volume};
use crate::model::volumes::{NodeVolume, NodeVolumeSource};
use crate::route::fixture::*;

const REDIS: &str = "PodDisruptionBudget expense/redis";

/// A budget over redis that never lets it go.
fn redis(i: &mut Inventory) {
    add_pdb(i, "expense", "redis", 1, 1);
}

fn redis_pod(i: &mut Inventory) -> &mut Pod {
    let is_redis = |p: &&mut Pod| p.labels.get("app").is_some_and(|a| a == "redis");
    i.pods.iter_mut().find(is_redis).unwrap()
}

fn first(findings: &[Finding], code: Code) -> &Finding {
    let found = findings.iter().find(|f| f.code == code.as_str());
    found.unwrap_or_else(|| panic!("{findings:#?}"))
}

#[test]
fn a_budget_that_cannot_be_worked_out_is_told_in_the_controllers_words() {
    let failed = |i: &mut Inventory| {
        let words = "rayclusters.ray.io does not implement the scale subresource";
        i.pdbs[1].sync_failed = Some(words.to_owned());
        (i.pdbs[1].allowed, i.pdbs[1].expected) = (0, 0);
    };
    let findings = with(&paired(""), failed);
    let subject = "PodDisruptionBudget expense/backend";
    only(&findings, Code::BudgetNever, Severity::Blocker, subject);
    let found = first(&findings, Code::BudgetNever);
    assert!(
        found
            .detail
            .contains("does not implement the scale subresource"),
        "{found:?}"
    );
    assert!(found.fix.contains("minAvailable"), "{found:?}");
    let waits = with(&paired("drain: {operatorBudgets: wait}\n"), failed);
    only(&waits, Code::BudgetNever, Severity::Blocker, subject);
}

#[test]
fn single_replicas_evict_and_a_budgets_own_consent_are_heeded() {
    for plan in [
        "drain: {singleReplicas: evict}\n",
        "drain: {budgets: {expense/redis: wait}}\n",
        "drain: {budgets: {\"expense/*\": delete}}\n",
    ] {
        let findings = with(&paired(plan), redis);
        only(&findings, Code::BudgetNever, Severity::Warning, REDIS);
    }
    // One budget's exception from what is said of its namespace.
    let plan = "drain: {budgets: {\"expense/*\": delete, expense/redis: block}}\n";
    let findings = with(&paired(plan), redis);
    only(&findings, Code::BudgetNever, Severity::Blocker, REDIS);
}

#[test]
fn an_operators_budget_waits_by_consent_but_not_where_its_pods_keep_data_on_the_node() {
    let owned = |host_path: bool| {
        move |i: &mut Inventory| {
            redis(i);
            let pod = redis_pod(i);
            pod.owner.as_mut().unwrap().kind = "InstanceManager".into();
            if host_path {
                pod.node_volumes.push(NodeVolume {
                    name: "data".into(),
                    source: NodeVolumeSource::HostPath {
                        path: "/var/lib/longhorn".into(),
                        path_type: "DirectoryOrCreate".into(),
                    },
                    mounts: Vec::new(),
                });
            }
        }
    };
    let wait = paired("drain: {operatorBudgets: wait}\n");
    let stop = paired("");
    let judge = |plan, host_path| {
        let findings = with(plan, owned(host_path));
        first(&findings, Code::BudgetNever).clone()
    };
    assert_eq!(judge(&stop, false).severity, Severity::Blocker);
    assert_eq!(judge(&wait, false).severity, Severity::Warning);
    let found = judge(&wait, true);
    assert_eq!(found.severity, Severity::Blocker);
    assert!(
        !found.fix.contains("edit pdb") && found.detail.contains("lost when the node is deleted"),
        "{found:?}"
    );
}

#[test]
fn a_way_out_does_not_begin_with_or() {
    let operators = |i: &mut Inventory| {
        redis(i);
        redis_pod(i).owner.as_mut().unwrap().kind = "Cluster".into();
    };
    let failed = |i: &mut Inventory| {
        redis(i);
        i.pdbs.last_mut().unwrap().sync_failed = Some("no".into());
    };
    let several = |i: &mut Inventory| i.pdbs[1].max_unavailable = Some("0".into());
    for change in [redis as fn(&mut Inventory), operators, failed, several] {
        let findings = with(&paired(""), |i| {
            change(i);
            i.pdbs[1].allowed = 0;
        });
        let fix = &first(&findings, Code::BudgetNever).fix;
        assert!(!fix.starts_with("or ") && !fix.is_empty(), "{fix}");
    }
}

#[test]
fn a_single_replica_that_a_restart_cannot_move_is_told_why() {
    let findings = judged(&paired("drain: {singleReplicas: surge}\n"), &expense_dev());
    let of_subject = |subject: &str| {
        let mut found = findings
            .iter()
            .filter(|f| f.code == Code::SingleReplica.as_str());
        found.find(|f| f.subject == subject).unwrap().clone()
    };
    let redis = of_subject("Deployment expense/redis");
    assert_eq!(redis.severity, Severity::Info);
    let mysql = of_subject("StatefulSet expense/mysql");
    assert_eq!(mysql.severity, Severity::Warning);
    assert!(
        mysql
            .detail
            .contains("only a Deployment starts the new pod before the old one ends"),
        "{mysql:?}"
    );
}

#[test]
fn a_pod_that_does_not_go_blocks_and_one_that_is_just_going_does_not() {
    let going = |finalizers: &'static [&'static str]| {
        with(&paired(""), |i| {
            let now = i.taken_at;
            i.pods.iter_mut().for_each(|p| p.created = Some(now));
            let pod = redis_pod(i);
            pod.deletion_timestamp = Some(now);
            pod.finalizers = finalizers.iter().map(|f| (*f).to_owned()).collect();
        })
    };
    let count = |findings: &[Finding]| of(findings, Code::StuckTerminating).len();
    assert_eq!(count(&going(&["example.com/cleanup"])), 1);
    assert_eq!(count(&going(&["batch.kubernetes.io/job-tracking"])), 0);
    assert_eq!(count(&going(&[])), 0);
}

#[test]
fn a_pod_that_has_been_going_for_long_by_the_servers_own_clock_blocks_without_a_finalizer() {
    let findings = with(&paired(""), |i| {
        let now = i.taken_at;
        i.pods.iter_mut().for_each(|p| p.created = Some(now));
        let hour = jiff::SignedDuration::from_hours(1);
        redis_pod(i).deletion_timestamp = Some(now - hour);
    });
    assert_eq!(
        of(&findings, Code::StuckTerminating).len(),
        1,
        "{findings:#?}"
    );
}

#[test]
fn a_daemon_set_that_is_ready_nowhere_is_told_and_one_that_is_ready_somewhere_is_not() {
    let with_pods = |ready: [bool; 2]| {
        with(&paired(""), |i| {
            let nodes: Vec<String> = i.nodes.iter().map(|n| n.name.clone()).collect();
            for (n, ready) in ready.into_iter().enumerate() {
                let mut pod = i.pods[0].clone();
                pod.key = NamespacedName::new("ops", format!("agent-{n}"));
                pod.node = Some(nodes[n].clone());
                pod.labels.clear();
                pod.ready = ready;
                pod.owner = Some(Owner {
                    kind: "DaemonSet".into(),
                    name: "agent".into(),
                    uid: "agent".into(),
                });
                i.pods.push(pod);
            }
        })
    };
    let down = with_pods([false, false]);
    let subject = "DaemonSet ops/agent";
    only(&down, Code::DaemonSetDown, Severity::Warning, subject);
    assert_eq!(of(&with_pods([true, false]), Code::DaemonSetDown), []);
}

#[test]
fn a_dead_node_blocks_where_the_drain_would_stop_at_it() {
    let dead = |i: &mut Inventory| i.nodes[0].ready = "Unknown".to_owned();
    let severity = |plan: &str| of(&with(&paired(plan), dead), Code::NodeNotReady)[0].0;
    assert_eq!(severity(""), Severity::Blocker);
    let skip = "drain: {deadKubelets: skip}\n";
    assert_eq!(severity(skip), Severity::Info);
    let empty = with(&paired(""), |i| {
        dead(i);
        let name = i.nodes[0].name.clone();
        i.pods.retain(|p| p.node.as_ref() != Some(&name));
    });
    assert_eq!(of(&empty, Code::NodeNotReady)[0].0, Severity::Warning);
}

#[test]
fn a_degraded_group_blocks_unless_it_has_no_nodes() {
    let severity = |size: i32| {
        let findings = with(&paired(""), |i| {
            let group = &mut i.nodegroups[0];
            group.status = NodegroupStatus::Degraded;
            group.scaling.desired = size;
            group.health.push(HealthIssue {
                code: "AsgInstanceLaunchFailures".into(),
                message: "no capacity".into(),
                resource_ids: vec![],
            });
        });
        first(&findings, Code::GroupHealth).severity
    };
    assert_eq!(severity(3), Severity::Blocker);
    assert_eq!(severity(0), Severity::Warning);
}

#[test]
fn replicas_that_share_a_volume_of_one_node_block_and_a_volume_of_many_nodes_does_not() {
    let shared = |mode: &'static str| {
        with(&paired(""), |i| {
            let is_frontend = |p: &&mut Pod| p.labels.get("app").is_some_and(|a| a == "frontend");
            for pod in i.pods.iter_mut().filter(is_frontend) {
                pod.claims = vec!["media".into()];
            }
            i.volumes.push(Volume {
                name: "pv-media".into(),
                claim: Some(NamespacedName::new("expense", "media")),
                zones: vec![],
                access_modes: vec![mode.to_owned()],
                ..i.volumes[0].clone()
            });
        })
    };
    let one = shared("ReadWriteOnce");
    let subject = "Deployment expense/frontend";
    only(&one, Code::ClaimShared, Severity::Blocker, subject);
    assert_eq!(of(&shared("ReadWriteMany"), Code::ClaimShared), []);
}

#[test]
fn a_template_that_names_a_node_of_blue_blocks() {
    let findings = with(&paired(""), |i| {
        let node = i.nodes[0].name.clone();
        let mut deployments = i.workloads.iter_mut().filter(|w| w.kind == "Deployment");
        let redis = deployments.find(|w| w.key.name == "redis").unwrap();
        redis.template.node = Some(node);
    });
    let subject = "Deployment expense/redis";
    only(&findings, Code::NodeNamed, Severity::Blocker, subject);
}

#[test]
fn slow_replacements_under_one_budget_are_compared_with_the_deadline() {
    let found = |plan: &str, seconds: i64| {
        let findings = with(&paired(plan), |i| {
            let node = i.nodes[0].name.clone();
            let is_backend = |p: &&mut Pod| p.labels.get("app").is_some_and(|a| a == "backend");
            for pod in i.pods.iter_mut().filter(is_backend) {
                pod.ready_delay_seconds = seconds;
                pod.node = Some(node.clone());
            }
        });
        of(&findings, Code::SlowReplacement)
    };
    assert_eq!(found("", 10), []);
    assert_eq!(found("", 600)[0].0, Severity::Warning);
    assert_eq!(found("", 1200)[0].0, Severity::Blocker);
    let patient = "drain: {podDeadline: 1h, nodeDeadline: 2h}\n";
    assert_eq!(found(patient, 1200), []);
}
