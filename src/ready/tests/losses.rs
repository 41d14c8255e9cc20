//! What would be lost: by workload, by storage system, by consent.

use super::*;
use crate::model::kube::{NamespacedName, Pod, Volume};

fn volume(name: &str, driver: &str, claim: &str) -> Volume {
    let mut inventory = expense_dev();
    Volume {
        name: name.to_owned(),
        claim: Some(NamespacedName::new("expense", claim)),
        driver: Some(driver.to_owned()),
        handle: Some("/srv/data".to_owned()),
        zones: Vec::new(),
        ..inventory.volumes.remove(0)
    }
}

fn engine_pod(label: (&str, &str), node: &str) -> Pod {
    let mut engine = running_pod("storage", "engine", "engine", "StatefulSet", node);
    engine.labels.insert(label.0.to_owned(), label.1.to_owned());
    engine
}

#[test]
fn all_workloads_that_would_lose_an_empty_dir_have_one_way_out() {
    let lose = |i: &mut Inventory| {
        for pod in &mut i.pods {
            if pod.key.namespace == "expense" {
                pod.node_volumes = vec![data_volume()];
            }
        }
    };
    let found = with(&paired(""), lose);
    let lost: Vec<&Finding> = found.iter().filter(|f| f.code == "EKSUP-P006").collect();
    let subjects: Vec<&str> = lost.iter().map(|f| f.subject.as_str()).collect();
    // One for each workload, whatever the number of its pods.
    assert_eq!(
        subjects,
        [
            "Deployment expense/backend",
            "Deployment expense/frontend",
            "Deployment expense/redis",
            "StatefulSet expense/mysql"
        ]
    );
    assert!(lost.iter().all(|f| f.fix == lost[0].fix));
    // The consent it shows lets them all go, and one of them only itself.
    let consent = lost[0]
        .fix
        .split("`drain: ")
        .nth(1)
        .unwrap()
        .trim_end_matches('`');
    assert_eq!(
        of(
            &with(&paired(&format!("drain: {consent}\n")), lose),
            Code::EmptyDir
        ),
        []
    );
    let one = "drain: {emptyDir: {evict: [Deployment expense/redis]}}\n";
    let left = with(&paired(one), lose);
    assert_eq!(of(&left, Code::EmptyDir).len(), 3);
    // What was consented to before is in the line that is shown.
    let shown = left.iter().find(|f| f.code == "EKSUP-P006").unwrap();
    assert!(
        shown
            .fix
            .contains("[\"Deployment expense/redis\", \"Deployment expense/backend\""),
        "{}",
        shown.fix
    );
}

#[test]
fn pods_that_run_to_completion_lose_nothing_while_they_are_waited_for() {
    let run = |i: &mut Inventory| {
        let mut runner = running_pod("ci", "runner", "runner", "x", "expense-blue-0");
        runner.owner = None;
        runner.restart_always = false;
        runner.node_volumes = vec![data_volume()];
        runner.created = Some(i.taken_at);
        i.pods.push(runner);
    };
    only(
        &with(&paired(""), run),
        Code::RunningJob,
        Severity::Info,
        "pod ci/runner",
    );
    let blocked = |found: &[Finding]| {
        let codes = [Code::BarePod, Code::EmptyDir, Code::RunningJob];
        codes.map(|c| of(found, c).len())
    };
    assert_eq!(blocked(&with(&paired(""), run)), [0, 0, 1]);
    assert_eq!(
        blocked(&with(&paired("drain: {jobs: evict}\n"), run)),
        [1, 1, 0]
    );
    assert_eq!(
        blocked(&with(&paired("drain: {jobs: {evict: [ci/*]}}\n"), run)),
        [1, 1, 0]
    );
    assert_eq!(
        blocked(&with(&paired("drain: {jobs: {evict: [batch/*]}}\n"), run)),
        [0, 0, 1]
    );
    // One that has run for longer than the node's deadline will hardly end within it.
    let old = with(&paired(""), |i| {
        run(i);
        let since = jiff::SignedDuration::from_hours(2);
        i.pods.last_mut().unwrap().created = Some(i.taken_at - since);
    });
    only(&old, Code::RunningJob, Severity::Warning, "pod ci/runner");
}

#[test]
fn volumes_of_a_storage_system_that_runs_on_blue_need_consent() {
    let on = |node: &'static str, claims: usize| {
        move |i: &mut Inventory| {
            i.volumes
                .push(volume("v", "rook-ceph.rbd.csi.ceph.com", "data"));
            let mut osd = engine_pod(("app", "rook-ceph-osd"), node);
            osd.claims = vec!["set1-data-0".to_owned(); claims];
            i.pods.push(osd);
        }
    };
    let claim = "PersistentVolumeClaim expense/data";
    only(
        &with(&paired(""), on("expense-blue-0", 0)),
        Code::NodeStorage,
        Severity::Blocker,
        claim,
    );
    // Elsewhere, on claims that move with it, or of another cluster, the data stay.
    for change in [on("other-0", 0), on("expense-blue-0", 1)] {
        assert_eq!(of(&with(&paired(""), change), Code::NodeStorage), []);
    }
    let external = with(&paired(""), |i| {
        i.volumes
            .push(volume("v", "rook-ceph.rbd.csi.ceph.com", "data"));
    });
    assert_eq!(of(&external, Code::NodeStorage), []);
    // Longhorn keeps data on nodes whatever is seen of its pods.
    let longhorn = |i: &mut Inventory| i.volumes.push(volume("v", "driver.longhorn.io", "data"));
    only(
        &with(&paired(""), longhorn),
        Code::NodeStorage,
        Severity::Blocker,
        claim,
    );
    let consented = "drain: {nodeStorage: {evict: [expense/data]}}\n";
    assert_eq!(
        of(&with(&paired(consented), longhorn), Code::NodeStorage),
        []
    );
    // The pods that use a volume stand for it.
    let used = with(&paired(""), |i| {
        i.volumes.push(volume("v", "driver.longhorn.io", "cache"));
        let redis = i
            .pods
            .iter_mut()
            .find(|p| p.labels["app"] == "redis")
            .unwrap();
        redis.claims.push("cache".to_owned());
    });
    only(
        &used,
        Code::NodeStorage,
        Severity::Blocker,
        "Deployment expense/redis",
    );
}

#[test]
fn a_claim_whose_volume_is_a_directory_of_any_node_is_data_of_the_node() {
    let mount = |i: &mut Inventory| {
        i.volumes
            .push(volume("v", "kubernetes.io/host-path", "cache"));
        let redis = i
            .pods
            .iter_mut()
            .find(|p| p.labels["app"] == "redis")
            .unwrap();
        redis.claims.push("cache".to_owned());
    };
    let found = with(&paired(""), mount);
    only(
        &found,
        Code::HostPathData,
        Severity::Blocker,
        "Deployment expense/redis",
    );
    assert!(
        found.iter().any(|f| f.detail.contains("/srv/data")),
        "{found:#?}"
    );
}

#[test]
fn a_local_volume_is_found_by_whatever_label_binds_it() {
    let bind = |i: &mut Inventory| {
        for node in &mut i.nodes {
            let name = node.name.clone();
            node.labels
                .insert("topology.topolvm.io/node".to_owned(), name);
        }
        let expression = crate::model::kube::SelectorExpression {
            key: "topology.topolvm.io/node".to_owned(),
            operator: "In".to_owned(),
            values: vec!["expense-blue-0".to_owned()],
        };
        i.volumes[0].node_affinity = Some(crate::model::scheduling::NodeSelector {
            terms: vec![crate::model::scheduling::NodeSelectorTerm {
                expressions: vec![expression],
                fields: Vec::new(),
            }],
        });
    };
    only(
        &with(&paired(""), bind),
        Code::LocalVolume,
        Severity::Blocker,
        "volume expense-mysql of StatefulSet expense/mysql",
    );
}
