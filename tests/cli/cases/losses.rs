//! What would be lost with blue.

use serde_json::{Value, json};

use super::{Case, of, read_json};

/// Changes the case's snapshot.
fn change(case: &Case, change: impl Fn(&mut Value)) {
    let path = case.folder.path().join("snapshot.json");
    let mut snapshot = read_json(&path);
    change(&mut snapshot["kubernetes"]);
    std::fs::write(path, snapshot.to_string()).unwrap();
}

/// The case's plan with more in its `drain`.
fn consenting(case: &Case, consent: &str) {
    let plan = case.plan("plan.yaml");
    let more = plan.replacen("drain: {", &format!("drain: {{{consent}, "), 1);
    assert_ne!(plan, more);
    case.write_plan("plan-consent.yaml", &more);
}

/// The consent that a finding shows, as it is written under `drain`.
fn shown_consent(fix: &str) -> &str {
    let from = fix.split_once("`drain: {").map(|(_, rest)| rest);
    from.and_then(|rest| rest.split_once("}`")).unwrap().0
}

/// Pods of Spark that run for an hour from when the cluster is read.
fn spark_for_an_hour() -> Case {
    let case = Case::new("04b-spark");
    change(&case, |kube| {
        for pod in kube["/api/v1/pods"].as_array_mut().unwrap() {
            if pod["metadata"]["namespace"] == "batch" {
                pod["metadata"]["annotations"] = json!({"twin.eksup.dev/runs-for": "60m"});
            }
        }
    });
    case
}

#[test]
fn pods_that_run_to_completion_without_a_job_are_waited_for() {
    let case = spark_for_an_hour();
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{findings:#?}");
    let running = of(&findings, "P014");
    assert_eq!(running.len(), 1, "{findings:#?}");
    assert_eq!(
        running[0].subject,
        "Pod batch/etl-driver, SparkApplication batch/etl"
    );

    let ended = case.rehearse("plan.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());
    let said = ended.said();
    assert!(
        said.contains("pods that run to completion are still running: batch/etl-"),
        "{said}"
    );
    let evicted = said
        .lines()
        .find(|l| l.contains("evict") && l.contains("batch/etl-"));
    assert_eq!(evicted, None);
}

#[test]
fn pods_that_run_to_completion_are_evicted_where_the_plan_says_so_of_them() {
    let case = spark_for_an_hour();
    consenting(&case, "jobs: {evict: [batch/*]}");
    let (code, findings) = case.check("plan-consent.yaml", "snapshot.json");
    assert_eq!(code, 0, "{findings:#?}");
    // Nothing built in starts them again.
    let warned = of(&findings, "P014")
        .iter()
        .any(|f| f.severity == "warning");
    assert!(warned, "{findings:#?}");
    let ended = case.rehearse("plan-consent.yaml", "snapshot.json", &[]);
    let said = ended.said();
    let evicted = said
        .lines()
        .any(|l| l.contains("evict") && l.contains("batch/etl-"));
    assert!(evicted, "{said}");
}

#[test]
fn data_in_a_directory_of_the_node_need_consent() {
    let case = Case::new("18-hostpath-data");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let data = of(&findings, "P050");
    assert_eq!((code, data.len()), (4, 1), "{findings:#?}");
    assert_eq!(data[0].subject, "StatefulSet data/prometheus");
    assert!(data[0].detail.contains("/mnt/prometheus"), "{data:?}");
    // One round of consents: the line that the finding shows is enough.
    consenting(&case, shown_consent(&data[0].fix));
    let (code, findings) = case.check("plan-consent.yaml", "snapshot.json");
    assert_eq!(code, 0, "{findings:#?}");
    let ended = case.rehearse("plan-consent.yaml", "snapshot.json", &[]);
    assert_eq!(ended.code, 0, "{}", ended.said());

    // Another workload's consent, and consent to lose an emptyDir, are none.
    for other in ["hostPath: {evict: [data/alertmanager]}", "emptyDir: evict"] {
        consenting(&case, other);
        let (code, findings) = case.check("plan-consent.yaml", "snapshot.json");
        assert_eq!((code, of(&findings, "P050").len()), (4, 1), "{other}");
    }
}

#[test]
fn pods_that_hold_a_storage_systems_data_are_told_with_the_way_to_keep_it() {
    let case = Case::new("26-longhorn");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    let data = of(&findings, "P050");
    assert_eq!((code, data.len()), (4, 1), "{findings:#?}");
    for pod in 0..3 {
        let name = format!("InstanceManager longhorn-system/instance-manager-{pod}abc");
        assert!(data[0].subject.contains(&name), "{data:?}");
    }
    for part in ["Longhorn", "/var/lib/longhorn", "lost when blue is deleted"] {
        assert!(data[0].detail.contains(part), "{data:?}");
    }
    assert!(data[0].fix.contains("rebuild"), "{data:?}");
    let consent = shown_consent(&data[0].fix);
    assert_eq!(
        consent,
        "hostPath: {evict: [\"InstanceManager longhorn-system/*\"]}"
    );
}

#[test]
fn a_volume_of_longhorn_on_blue_is_no_volume_that_just_moves() {
    let case = Case::new("26-longhorn");
    change(&case, |kube| {
        let volumes = kube["/api/v1/persistentvolumes"].as_array_mut().unwrap();
        let mut volume = volumes[0].clone();
        volume["metadata"]["name"] = json!("pvc-longhorn");
        volume["metadata"]["uid"] = json!("b1d8ad66-8f0a-4b51-9d8f-4fd35a5ea97e");
        volume["spec"] = json!({
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "claimRef": {"namespace": "shop", "name": "data-db-0"},
            "csi": {"driver": "driver.longhorn.io", "volumeHandle": "pvc-longhorn"},
        });
        volumes.push(volume);
    });
    let (_, findings) = case.check("plan.yaml", "snapshot.json");
    let kept = of(&findings, "P051");
    assert_eq!(kept.len(), 1, "{findings:#?}");
    assert_eq!(kept[0].severity, "blocker");
    assert_eq!(kept[0].subject, "PersistentVolumeClaim shop/data-db-0");
    assert!(kept[0].detail.contains("pvc-longhorn"), "{kept:?}");
}
