//! Jobs: pods that run to their end; one that is lost on the way is replaced.

use serde_json::{Value, json};

use super::super::cluster::Cluster;
use super::super::json::{at, list, number, set, set_condition, text};
use super::super::kinds::JOBS;
use super::super::store::{Key, Name, Object};
use super::{Work, pods};

/// Starts what is missing, and counts.
pub fn reconcile(cluster: &mut Cluster, name: &Name) {
    let Some(job) = cluster.store.find(JOBS, name).cloned() else {
        return;
    };
    if at(&job, "metadata.deletionTimestamp").is_some() || is_over(&job) {
        return;
    }
    let uid = text(&job, "metadata.uid").to_owned();
    let all = cluster.store.pods_of(&uid);
    let active = all.iter().filter(|p| p.active()).count() as i64;
    let succeeded = all.iter().filter(|p| p.phase == "Succeeded").count() as i64;
    let lost = cluster.lost.get(&uid).copied().unwrap_or(0);
    let failed = all.iter().filter(|p| p.phase == "Failed").count() as i64 + lost;
    let completions = number(&job, "spec.completions").unwrap_or(1);
    let limit = number(&job, "spec.backoffLimit").unwrap_or(6);
    let stamp = cluster.stamp();
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
    if over.is_some() {
        for pod in all.iter().filter(|p| p.active()) {
            pods::delete(cluster, pod);
        }
    } else if !super::super::json::flag(&job, "spec.suspend") {
        let parallel = number(&job, "spec.parallelism").unwrap_or(1);
        for _ in active..parallel.min(completions - succeeded) {
            let mut pod = pods::from_template(&job);
            set(&mut pod, "metadata.generateName", format!("{}-", name.name));
            if !pods::create(cluster, pod, Work::Job(name.clone())) {
                break;
            }
            running += 1;
        }
    }
    let ready = all.iter().filter(|p| p.active() && p.ready).count();
    cluster.change(
        &Key {
            res: JOBS,
            at: name.clone(),
        },
        |j| {
            super::super::json::default(j, "status.startTime", stamp.clone());
            set(j, "status.active", running);
            set(j, "status.ready", ready);
            set(j, "status.succeeded", succeeded);
            set(j, "status.failed", failed);
            if let Some((kind, reason, message)) = over {
                set_condition(
                    j,
                    json!({
                        "type": kind, "status": "True", "reason": reason, "message": message,
                        "lastProbeTime": stamp, "lastTransitionTime": stamp,
                    }),
                );
                if kind == "Complete" {
                    set(j, "status.completionTime", stamp);
                }
            }
        },
    );
}

fn is_over(job: &Value) -> bool {
    let ended =
        |c: &Value| matches!(text(c, "type"), "Complete" | "Failed") && text(c, "status") == "True";
    list(job, "status.conditions").iter().any(ended)
}

/// A job's pod went before its end: that counts as a failure, unless the job says that a disruption does not.
pub fn pod_lost(cluster: &mut Cluster, pod: &Object, job_uid: &str, name: &Name) {
    let Some(job) = cluster.store.find(JOBS, name).cloned() else {
        return;
    };
    let disrupted = super::super::json::condition(pod, "DisruptionTarget").is_some();
    let forgiving = list(&job, "spec.podFailurePolicy.rules")
        .iter()
        .any(|rule| {
            let about = list(rule, "onPodConditions")
                .iter()
                .any(|c| text(c, "type") == "DisruptionTarget");
            text(rule, "action") == "Ignore" && about
        });
    if !(disrupted && forgiving) {
        *cluster.lost.entry(job_uid.to_owned()).or_default() += 1;
    }
}
