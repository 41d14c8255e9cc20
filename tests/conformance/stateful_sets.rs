//! StatefulSets during an update: who gets which template, and what the controller waits for.

use std::time::Duration;

use serde_json::{Value, json};

use super::call::{Arm, merge, name, pod_spec, uid};

async fn stateful_set(arm: &Arm, app: &str, replicas: i32, spec: Value) {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": app},
        "spec": {"serviceName": app, "replicas": replicas, "selector": {"matchLabels": {"app": app}},
                 "template": {"metadata": {"labels": {"app": app}}, "spec": pod_spec()}},
    });
    merge(&mut set["spec"], &spec);
    arm.create(&arm.apis("apps/v1", "statefulsets"), &set).await;
}

/// The mark in the template that each pod was made of, by its name.
async fn marks(arm: &Arm, app: &str, n: usize) -> Vec<(String, String)> {
    let pods = arm.ready(app, n).await;
    let mark = |p: &Value| {
        p["metadata"]["annotations"]["mark"]
            .as_str()
            .map(str::to_owned)
    };
    pods.iter()
        .map(|p| (name(p), mark(p).unwrap_or_default()))
        .collect()
}

async fn mark_template(arm: &Arm, app: &str, mark: &str) {
    let path = arm.apis("apps/v1", &format!("statefulsets/{app}"));
    let change = json!({"spec": {"template": {"metadata": {"annotations": {"mark": mark}}}}});
    assert_eq!(arm.merge(&path, &change).await.code, 200);
}

fn named(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, mark): &(&str, &str)| ((*name).to_owned(), (*mark).to_owned());
    pairs.iter().map(pair).collect()
}

pub async fn an_update_stops_at_the_partition_counted_from_the_first_ordinal(arm: &Arm) {
    let spec = json!({
        "ordinals": {"start": 1},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}},
    });
    stateful_set(arm, "part", 3, spec).await;
    arm.ready("part", 3).await;
    mark_template(arm, "part", "new").await;
    let updated = named(&[("part-1", ""), ("part-2", "new"), ("part-3", "new")]);
    arm.until("two pods of the new template", async || {
        (marks(arm, "part", 3).await == updated).then_some(())
    })
    .await;
    // A pod below the partition that goes comes back from the old template.
    let old = arm.get(&arm.core("pods/part-1")).await.body;
    arm.delete(&arm.core("pods/part-1")).await;
    arm.until("part-1 again", async || {
        let pod = arm.get(&arm.core("pods/part-1")).await;
        (pod.code == 200 && uid(&pod.body) != uid(&old)).then_some(())
    })
    .await;
    assert_eq!(marks(arm, "part", 3).await, updated);
    let set = arm
        .until("its status", async || {
            let set = arm
                .get(&arm.apis("apps/v1", "statefulsets/part"))
                .await
                .body;
            (set["status"]["currentReplicas"] == 1).then_some(set)
        })
        .await;
    assert_eq!(set["status"]["updatedReplicas"], 2);
    assert_ne!(
        set["status"]["currentRevision"],
        set["status"]["updateRevision"]
    );
}

pub async fn a_stateful_pod_that_never_gets_ready_is_kept_though_a_new_template_has_come(
    arm: &Arm,
) {
    let nowhere = json!({"template": {"spec": {"nodeSelector": {"no.such/label": "x"}}}});
    stateful_set(arm, "broken", 2, nowhere).await;
    let broken = arm
        .until("a pod that cannot be placed", async || {
            arm.pods("broken").await.first().cloned()
        })
        .await;
    let path = arm.apis("apps/v1", "statefulsets/broken");
    let repair = json!({"spec": {"template": {"spec": {"nodeSelector": null}}}});
    assert_eq!(arm.merge(&path, &repair).await.code, 200);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pods = arm.pods("broken").await;
        assert_eq!((pods.len(), uid(&pods[0])), (1, uid(&broken)));
    }
    // Somebody has to delete it.
    arm.delete(&arm.core("pods/broken-0")).await;
    arm.ready("broken", 2).await;
}

pub async fn a_stateful_set_waits_until_a_pod_is_available(arm: &Arm) {
    stateful_set(arm, "slow", 2, json!({"minReadySeconds": 6})).await;
    let path = arm.apis("apps/v1", "statefulsets/slow");
    arm.ready("slow", 1).await;
    let status = arm
        .until("a Ready pod in the status", async || {
            let set = arm.get(&path).await.body;
            (set["status"]["readyReplicas"] == 1).then(|| set["status"].clone())
        })
        .await;
    assert_eq!(status["availableReplicas"], 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(
        arm.pods("slow").await.len(),
        1,
        "the next pod came too early"
    );
    arm.until("both available", async || {
        let set = arm.get(&path).await.body;
        (set["status"]["availableReplicas"] == 2).then_some(())
    })
    .await;
}
