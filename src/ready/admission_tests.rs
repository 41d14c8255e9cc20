//! Pods that the API server would refuse to make again.

use std::collections::BTreeMap;

use super::tests::{of, only, paired, with};
use super::*;
use crate::model::Inventory;
use crate::model::inventory::Unread;
use crate::model::kube::{NamespacedName, Owner, Pod};
use crate::model::pod_admission::{ComputeResource, QuotaScope, ResourceQuota, SecurityViolation};
use crate::route::fixture::string_map;

const BACKEND: &str = "Deployment expense/backend";
const QUOTA: &str = "ResourceQuota expense/team";

fn pods_of<'a>(i: &'a mut Inventory, app: &'a str) -> impl Iterator<Item = &'a mut Pod> {
    let pods = i.pods.iter_mut();
    pods.filter(move |p| p.labels.get("app").is_some_and(|a| a == app))
}

/// Pods and templates of `backend` name a class, of which there are `classes`.
fn with_class(i: &mut Inventory, classes: Option<&[&str]>) {
    let class = Some("shop".to_owned());
    pods_of(i, "backend").for_each(|p| p.priority_class = class.clone());
    for workload in i.workloads.iter_mut() {
        if workload.key.name.starts_with("backend") {
            workload.template.priority_class = class.clone();
        }
    }
    i.priority_classes = classes.map(|all| all.iter().map(|c| (*c).to_owned()).collect());
}

fn amounts<const N: usize>(pairs: [(&str, i64); N]) -> BTreeMap<String, i64> {
    pairs.map(|(name, n)| (name.to_owned(), n)).into()
}

fn quota<const N: usize>(hard: [(&str, i64); N], used: [(&str, i64); N]) -> ResourceQuota {
    ResourceQuota {
        key: NamespacedName::new("expense", "team"),
        hard: amounts(hard),
        used: amounts(used),
        scopes: Vec::new(),
    }
}

fn scope(name: &str, operator: &str, values: &[&str]) -> QuotaScope {
    QuotaScope {
        name: name.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|v| (*v).to_owned()).collect(),
    }
}

fn secured(
    i: &mut Inventory,
    level: &str,
    pod: &[SecurityViolation],
    template: &[SecurityViolation],
) {
    let labels = string_map([("pod-security.kubernetes.io/enforce", level)]);
    i.namespaces = [("expense".to_owned(), labels)].into();
    pods_of(i, "backend").for_each(|p| p.admission.violations = pod.to_vec());
    for workload in i.workloads.iter_mut() {
        if workload.key.name.starts_with("backend") {
            workload.template.admission.violations = template.to_vec();
        }
    }
}

#[test]
fn a_class_that_a_template_names_must_exist() {
    let code = Code::PriorityClassGone;
    let gone = with(&paired(""), |i| with_class(i, Some(&["other"])));
    only(&gone, code, Severity::Blocker, BACKEND);
    let there = with(&paired(""), |i| with_class(i, Some(&["shop"])));
    assert!(of(&there, code).is_empty(), "{there:#?}");
    let built_in = with(&paired(""), |i| {
        with_class(i, Some(&[]));
        for workload in &mut i.workloads {
            workload.template.priority_class = Some("system-cluster-critical".to_owned());
        }
    });
    assert!(of(&built_in, code).is_empty(), "{built_in:#?}");
}

#[test]
fn classes_that_could_not_be_read_are_unknown_and_none_where_nobody_names_one() {
    let unread = Unread {
        op: "list priorityclasses".to_owned(),
        why: "forbidden".to_owned(),
    };
    let unknown = with(&paired(""), |i| {
        with_class(i, None);
        i.unread.push(unread.clone());
    });
    only(
        &unknown,
        Code::PriorityClassGone,
        Severity::Warning,
        BACKEND,
    );
    // What a twin answers is no witness.
    let of_twin = with(&paired(""), |i| {
        with_class(i, Some(&[]));
        i.unread.push(unread.clone());
    });
    only(
        &of_twin,
        Code::PriorityClassGone,
        Severity::Warning,
        BACKEND,
    );
    let nobody = with(&paired(""), |i| i.unread.push(unread.clone()));
    assert!(
        of(&nobody, Code::PriorityClassGone).is_empty(),
        "{nobody:#?}"
    );
}

#[test]
fn what_an_operator_will_name_is_not_known_and_a_bare_pod_is_not_made_again() {
    let by_operator = with(&paired(""), |i| {
        with_class(i, Some(&[]));
        for pod in pods_of(i, "backend") {
            pod.owner = Some(Owner {
                kind: "Shop".to_owned(),
                name: "backend".to_owned(),
                uid: "uid-shop".to_owned(),
            });
        }
    });
    let found = of(&by_operator, Code::PriorityClassGone);
    assert_eq!(
        found,
        [(Severity::Warning, "Shop expense/backend".to_owned())]
    );
    let bare = with(&paired(""), |i| {
        with_class(i, Some(&[]));
        pods_of(i, "backend").for_each(|p| p.owner = None);
    });
    assert!(of(&bare, Code::PriorityClassGone).is_empty(), "{bare:#?}");
}

#[test]
fn a_quota_refuses_replacements_where_it_is_overdrawn_and_not_where_it_is_full() {
    let found = |hard: i64| {
        with(&paired(""), |i| {
            i.resource_quotas = Some(vec![quota(
                [("requests.cpu", hard)],
                [("requests.cpu", 2000)],
            )]);
            // Their pods would need room on green.
            i.pods.retain(|p| !p.is_daemon_pod());
        })
    };
    assert!(of(&found(2000), Code::QuotaRefuses).is_empty());
    let over = found(1900);
    only(&over, Code::QuotaRefuses, Severity::Blocker, QUOTA);
    let told = over.iter().find(|f| f.subject == QUOTA).unwrap();
    let why = "exceeded quota: team, requested: requests.cpu=200m, used: requests.cpu=1800m, limited: requests.cpu=1900m";
    assert!(told.detail.contains(why), "{}", told.detail);
    // Nobody takes it.
    let other = with(&paired(""), |i| {
        i.resource_quotas = Some(vec![quota(
            [("requests.nvidia.com/gpu", 0)],
            [("requests.nvidia.com/gpu", 1)],
        )]);
    });
    assert!(of(&other, Code::QuotaRefuses).is_empty(), "{other:#?}");
}

#[test]
fn a_quota_says_nothing_of_pods_out_of_its_scopes() {
    let found = |scope: QuotaScope| {
        let found = with(&paired(""), |i| {
            let mut quota = quota([("pods", 1)], [("pods", 9)]);
            quota.scopes.push(scope);
            i.resource_quotas = Some(vec![quota]);
        });
        of(&found, Code::QuotaRefuses).len()
    };
    for (one, refuses) in [
        (scope("NotTerminating", "Exists", &[]), 1),
        (scope("Terminating", "Exists", &[]), 0),
        (scope("NotBestEffort", "Exists", &[]), 1),
        (scope("BestEffort", "Exists", &[]), 0),
        (scope("PriorityClass", "In", &["shop"]), 0),
        (scope("PriorityClass", "NotIn", &["shop"]), 1),
        (scope("PriorityClass", "Exists", &[]), 0),
        (scope("CrossNamespacePodAffinity", "Exists", &[]), 0),
    ] {
        assert_eq!(found(one.clone()), refuses, "{one:?}");
    }
}

#[test]
fn what_containers_do_not_state_a_limit_range_may_give() {
    let found = |given: Option<&[ComputeResource]>| {
        with(&paired(""), |i| {
            i.resource_quotas = Some(vec![quota([("limits.cpu", 100_000)], [("limits.cpu", 0)])]);
            pods_of(i, "backend")
                .for_each(|p| p.admission.unstated = vec![ComputeResource::LimitsCpu]);
            i.limit_defaults = given.map(|g| {
                let given = g.iter().copied().collect();
                [("expense".to_owned(), given)].into()
            });
        })
    };
    let code = Code::QuotaRefuses;
    only(&found(Some(&[])), code, Severity::Blocker, QUOTA);
    only(&found(None), code, Severity::Warning, QUOTA);
    assert!(of(&found(Some(&[ComputeResource::LimitsCpu])), code).is_empty());
}

#[test]
fn a_level_refuses_what_pod_and_template_have_in_common() {
    use SecurityViolation::{KeptCapabilities, Privileged, ProbeHosts};
    let code = Code::PodSecurityRefuses;
    let found = |level: &str, pod: &[SecurityViolation], template: &[SecurityViolation]| {
        let found = with(&paired(""), |i| secured(i, level, pod, template));
        of(&found, code)
    };
    let told = |severity| [(severity, BACKEND.to_owned())];
    let both = [Privileged];
    assert_eq!(found("baseline", &both, &both), told(Severity::Blocker));
    assert_eq!(found("no-level", &both, &both), told(Severity::Blocker));
    // A webhook adds it to every pod, or takes it from every pod.
    assert_eq!(found("baseline", &both, &[]), told(Severity::Warning));
    assert!(found("baseline", &[], &both).is_empty());
    assert!(found("privileged", &both, &both).is_empty());
    let kept = [KeptCapabilities];
    assert!(found("baseline", &kept, &kept).is_empty());
    assert_eq!(found("restricted", &kept, &kept), told(Severity::Blocker));
    // Kubernetes 1.29 does not know the rule.
    let hosts = [ProbeHosts];
    assert!(found("baseline", &hosts, &hosts).is_empty());
}
