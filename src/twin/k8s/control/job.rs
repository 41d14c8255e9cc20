//! Jobs: pods that run to their end; one that is lost on the way is replaced.

use serde_json::{Value, json};

use super::super::cluster::SimCluster;
use super::super::json::{list_at, number_at, set_at, set_condition, text_at, value_at};
use super::super::kinds::JOBS;
use super::super::store::{ObjectKey, ObjectName, StoredObject};
use super::{ControllerWork, pods};

/// Starts what is missing, and counts.
pub fn reconcile(cluster: &mut SimCluster, name: &ObjectName) {
    let Some(job) = cluster.store.find_object(JOBS, name).cloned() else {
        return;
    };
    // A Job that is over starts nothing again, whatever becomes of its pods.
    if value_at(&job, "metadata.deletionTimestamp").is_some() || is_over(&job) {
        return;
    }
    let uid = text_at(&job, "metadata.uid").to_owned();
    let all = cluster.store.pods_of(&uid);
    let active = all.iter().filter(|p| p.is_active()).count() as i64;
    let succeeded = all.iter().filter(|p| p.phase == "Succeeded").count() as i64;
    // A pod that was evicted and removed counts as failed although it is no longer in the list (K8S-POD-5).
    let lost = cluster.lost.get(&uid).copied().unwrap_or(0);
    let failed = all.iter().filter(|p| p.phase == "Failed").count() as i64 + lost;
    let completions = number_at(&job, "spec.completions").unwrap_or(1);
    let limit = number_at(&job, "spec.backoffLimit").unwrap_or(6);
    let stamp = cluster.timestamp_text();
    // Success is asked first: a Job whose last pod was lost after the others succeeded is complete.
    let over = if succeeded >= completions {
        Some((
            "Complete",
            "CompletionsReached",
            "Reached expected number of succeeded pods",
        ))
    } else if failed > limit {
        Some((
            "Failed",
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        ))
    } else {
        None
    };
    let mut running = active;
    // Pods that still run when a Job is over are ended, and a suspended Job starts none.
    if over.is_some() {
        for pod in all.iter().filter(|p| p.is_active()) {
            pods::delete_pod(cluster, pod);
        }
    } else if !super::super::json::flag_at(&job, "spec.suspend") {
        let parallel = number_at(&job, "spec.parallelism").unwrap_or(1);
        // Only as many pods run at once as the Job allows, and never more than are still needed.
        for _ in active..parallel.min(completions - succeeded) {
            let mut pod = pods::pod_from_template(&job);
            set_at(&mut pod, "metadata.generateName", format!("{}-", name.name));
            // A refused pod is tried again by the Job's own work.
            if pods::create_pod(cluster, pod, ControllerWork::Job(name.clone())).is_err() {
                break;
            }
            running += 1;
        }
    }
    let ready = all.iter().filter(|p| p.is_active() && p.ready).count();
    // The condition and the end time are written with the counts, so a watch never sees a Job that is over without
    // them.
    cluster.change_object(
        &ObjectKey {
            res: JOBS,
            at: name.clone(),
        },
        |j| {
            // A Job that is suspended has not begun.
            if !super::super::json::flag_at(j, "spec.suspend") {
                super::super::json::set_default_at(j, "status.startTime", stamp.clone());
            }
            set_at(j, "status.active", running);
            set_at(j, "status.ready", ready);
            set_at(j, "status.succeeded", succeeded);
            set_at(j, "status.failed", failed);
            if let Some((kind, reason, message)) = over {
                set_condition(
                    j,
                    json!({
                        "type": kind, "status": "True", "reason": reason, "message": message,
                        "lastProbeTime": stamp, "lastTransitionTime": stamp,
                    }),
                );
                if kind == "Complete" {
                    set_at(j, "status.completionTime", stamp);
                }
            }
        },
    );
}

fn is_over(job: &Value) -> bool {
    let ended = |c: &Value| {
        matches!(text_at(c, "type"), "Complete" | "Failed") && text_at(c, "status") == "True"
    };
    list_at(job, "status.conditions").iter().any(ended)
}

/// A job's pod went before its end: that counts as a failure, unless the job says that a disruption does not.
pub fn on_pod_lost(cluster: &mut SimCluster, pod: &StoredObject, job_uid: &str, name: &ObjectName) {
    let Some(job) = cluster.store.find_object(JOBS, name).cloned() else {
        return;
    };
    let disrupted = super::super::json::find_condition(pod, "DisruptionTarget").is_some();
    let forgiving = list_at(&job, "spec.podFailurePolicy.rules")
        .iter()
        .any(|rule| {
            let about = list_at(rule, "onPodConditions")
                .iter()
                .any(|c| text_at(c, "type") == "DisruptionTarget");
            text_at(rule, "action") == "Ignore" && about
        });
    if !(disrupted && forgiving) {
        *cluster.lost.entry(job_uid.to_owned()).or_default() += 1;
    }
}
