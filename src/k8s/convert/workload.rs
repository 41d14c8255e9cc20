//! Deployments, ReplicaSets, StatefulSets, DaemonSets and Jobs.

use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::api::{apps, batch};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{
    find_controller, number_or_percent, object_key, scheduling, to_selector, to_tolerations,
};
use crate::model::kube::Workload;
use crate::model::marks;
use crate::model::scheduling::PodTemplate;

/// Reads a Deployment.
pub fn deployment_to_workload(d: apps::v1::Deployment) -> Workload {
    let (spec, status) = (d.spec, d.status.unwrap_or_default());
    let strategy = spec.strategy.unwrap_or_default();
    let rolling = strategy.rolling_update.unwrap_or_default();
    Workload {
        desired: spec.replicas.unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        strategy: strategy.type_,
        max_surge: rolling.max_surge.map(number_or_percent),
        max_unavailable: rolling.max_unavailable.map(number_or_percent),
        paused: spec.paused.unwrap_or(false),
        ..base_workload(
            "Deployment",
            d.metadata,
            Some(spec.selector),
            Some(spec.template),
        )
    }
}

/// Reads a ReplicaSet, with the API server's words where it refuses its pods (K8S-ADM-5).
pub fn replica_set_to_workload(r: apps::v1::ReplicaSet) -> Workload {
    let (spec, status) = (r.spec, r.status.unwrap_or_default());
    let mut conditions = status.conditions.into_iter().flatten();
    let refusal = conditions.find(|c| {
        c.type_.as_deref() == Some("ReplicaFailure") && c.status.as_deref() == Some("True")
    });
    Workload {
        desired: spec.replicas.unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        updated: status.replicas,
        observed_generation: status.observed_generation.unwrap_or(0),
        pod_refusal: refusal.and_then(|c| c.message),
        ..base_workload("ReplicaSet", r.metadata, Some(spec.selector), spec.template)
    }
}

/// A ReplicaSet, unless it neither wants nor has a pod.
pub fn active_replica_set_to_workload(r: apps::v1::ReplicaSet) -> Option<Workload> {
    let wants = r.spec.replicas.unwrap_or(1);
    let has = r.status.as_ref().map_or(0, |s| s.replicas);
    (wants > 0 || has > 0).then(|| replica_set_to_workload(r))
}

/// Reads a StatefulSet, with the names of its claim templates.
pub fn stateful_set_to_workload(s: apps::v1::StatefulSet) -> Workload {
    let (spec, status) = (s.spec, s.status.unwrap_or_default());
    let base = base_workload(
        "StatefulSet",
        s.metadata,
        Some(spec.selector),
        Some(spec.template),
    );
    let claim_templates = spec.volume_claim_templates.into_iter().flatten();
    Workload {
        desired: spec.replicas.unwrap_or(1),
        ready: status.ready_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        strategy: spec.update_strategy.and_then(|u| u.type_),
        one_after_another: spec.pod_management_policy.as_deref() != Some("Parallel"),
        template: PodTemplate {
            claim_templates: claim_templates
                .filter_map(|claim| claim.metadata.name)
                .collect(),
            ..base.template
        },
        ..base
    }
}

/// Reads a DaemonSet. What it wants is what its controller has counted, not what a spec says.
pub fn daemon_set_to_workload(d: apps::v1::DaemonSet) -> Workload {
    let (spec, status) = (d.spec, d.status.unwrap_or_default());
    let strategy = spec.update_strategy.unwrap_or_default();
    Workload {
        desired: status.desired_number_scheduled,
        ready: status.number_ready,
        available: status.number_available.unwrap_or(0),
        updated: status.updated_number_scheduled.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        strategy: strategy.type_,
        max_surge: strategy
            .rolling_update
            .and_then(|r| r.max_surge)
            .map(number_or_percent),
        ..base_workload(
            "DaemonSet",
            d.metadata,
            Some(spec.selector),
            Some(spec.template),
        )
    }
}

/// Reads a Job.
pub fn job_to_workload(j: batch::v1::Job) -> Workload {
    let (spec, status) = (j.spec.unwrap_or_default(), j.status.unwrap_or_default());
    let ended = status
        .conditions
        .iter()
        .flatten()
        .any(|c| matches!(c.type_.as_str(), "Complete" | "Failed") && c.status == "True");
    let active = status.active.unwrap_or(0);
    Workload {
        // A job that has ended wants no pod any more.
        desired: if ended {
            0
        } else {
            spec.parallelism.unwrap_or(1)
        },
        ready: status.ready.unwrap_or(0),
        available: active,
        updated: active,
        // Jobs do not report one.
        observed_generation: j.metadata.generation.unwrap_or(0),
        paused: spec.suspend.unwrap_or(false),
        ..base_workload("Job", j.metadata, spec.selector, Some(spec.template))
    }
}

/// The flags of a cluster autoscaler that say which groups it manages. Nothing else of a command is kept: it may hold
/// what nobody should read.
fn find_autoscaler_flags(container: &Container) -> Vec<String> {
    let image = container.image.as_deref().unwrap_or_default();
    if !image.contains("cluster-autoscaler") {
        return Vec::new();
    }
    let words = container.command.iter().chain(&container.args).flatten();
    let words: Vec<&str> = words.map(String::as_str).collect();
    let wanted = |flag: &str| marks::AUTOSCALER_FLAGS.contains(&flag);
    let mut flags = Vec::new();
    for (i, word) in words.iter().enumerate() {
        match (word.split_once('='), words.get(i + 1)) {
            (Some((flag, _)), _) if wanted(flag) => flags.push((*word).to_owned()),
            (None, Some(value)) if wanted(word) => flags.push(format!("{word}={value}")),
            _ => {}
        }
    }
    flags
}

/// What all kinds have in common; the rest reads as nothing.
fn base_workload(
    kind: &str,
    meta: ObjectMeta,
    chosen: Option<LabelSelector>,
    template: Option<PodTemplateSpec>,
) -> Workload {
    let template = template.unwrap_or_default();
    let spec = template.spec.unwrap_or_default();
    let template_meta = template.metadata.unwrap_or_default();
    let annotations = template_meta.annotations.unwrap_or_default();
    Workload {
        kind: kind.to_owned(),
        template: scheduling::to_pod_template(&annotations, &spec),
        key: object_key(&meta),
        owner: find_controller(&meta),
        uid: meta.uid.unwrap_or_default(),
        labels: meta.labels.unwrap_or_default(),
        selector: chosen.map(to_selector),
        template_labels: template_meta.labels.unwrap_or_default(),
        // Counts and strategy are each kind's own, and set by its conversion.
        desired: 0,
        ready: 0,
        available: 0,
        updated: 0,
        generation: meta.generation.unwrap_or(0),
        observed_generation: 0,
        strategy: None,
        max_surge: None,
        max_unavailable: None,
        paused: false,
        readiness_probe: spec.containers.iter().any(|c| c.readiness_probe.is_some()),
        one_after_another: false,
        pod_refusal: None,
        // A cluster autoscaler is known by its flags, whatever its Deployment is called.
        autoscaler_flags: spec
            .containers
            .iter()
            .flat_map(find_autoscaler_flags)
            .collect(),
        images: spec
            .containers
            .into_iter()
            .filter_map(|c| c.image)
            .collect(),
        node_selector: spec.node_selector.unwrap_or_default(),
        tolerations: to_tolerations(spec.tolerations),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_autoscalers_command_only_the_flags_that_name_groups_are_kept() {
        let text = |words: &[&str]| Some(words.iter().map(|w| (*w).to_owned()).collect());
        let mut container = Container {
            image: Some("registry.k8s.io/autoscaling/cluster-autoscaler:v1.27.3".into()),
            command: text(&[
                "./cluster-autoscaler",
                "--nodes",
                "1:5:asg-a",
                "--token=secret",
            ]),
            args: text(&["--node-group-auto-discovery=asg:tag=a,b=c", "--v=4"]),
            ..Container::default()
        };
        assert_eq!(
            find_autoscaler_flags(&container),
            [
                "--nodes=1:5:asg-a",
                "--node-group-auto-discovery=asg:tag=a,b=c"
            ]
        );
        container.image = Some("registry.example/app:v1".into());
        assert!(find_autoscaler_flags(&container).is_empty());
    }
}
