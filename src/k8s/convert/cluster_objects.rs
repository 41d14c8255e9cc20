//! Budgets, services, volumes, attachments and target group bindings.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{core, policy, storage};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use serde::Deserialize;
use serde_json::Value;

use super::scheduling::to_node_selector;
use super::{find_recreating_owner, number_or_percent, object_key, take_annotations, to_selector};
use crate::model::kube::{Attachment, NamespacedName, Pdb, Service, TargetGroupBinding, Volume};

/// Label keys by which a volume says which zones it can be used in.
const VOLUME_ZONE_KEYS: &[&str] = &[
    "topology.kubernetes.io/zone",
    "topology.ebs.csi.aws.com/zone",
    "failure-domain.beta.kubernetes.io/zone",
];
/// The label key by which a local volume says which node it is on.
const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";

/// Reads a PodDisruptionBudget with its status, which decides evictions. A count that is not there is 0: it allows
/// nothing.
pub fn to_pdb(p: policy::v1::PodDisruptionBudget) -> Pdb {
    let (spec, status) = (p.spec.unwrap_or_default(), p.status.unwrap_or_default());
    Pdb {
        key: object_key(&p.metadata),
        selector: spec.selector.map(to_selector),
        min_available: spec.min_available.map(number_or_percent),
        max_unavailable: spec.max_unavailable.map(number_or_percent),
        unhealthy_policy: spec.unhealthy_pod_eviction_policy,
        allowed: status.disruptions_allowed.unwrap_or(0),
        current_healthy: status.current_healthy.unwrap_or(0),
        desired_healthy: status.desired_healthy.unwrap_or(0),
        expected: status.expected_pods.unwrap_or(0),
        generation: p.metadata.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        // Pods whose eviction the API server has recorded and whose end the budget's controller has not seen: `allowed`
        // is without them already.
        disrupted: status
            .disrupted_pods
            .unwrap_or_default()
            .into_keys()
            .collect(),
        owner: find_recreating_owner(&p.metadata),
        sync_failed: status.conditions.and_then(|all| {
            let failed = |c: &Condition| c.type_ == "DisruptionAllowed" && c.reason == "SyncFailed";
            all.into_iter().find(failed).map(|c| c.message)
        }),
    }
}

/// Reads a Service; a port that is 0 is none.
pub fn to_service(mut s: core::v1::Service) -> Service {
    let annotations = take_annotations(&mut s.metadata);
    let spec = s.spec.unwrap_or_default();
    Service {
        key: object_key(&s.metadata),
        kind: spec.type_.unwrap_or_else(|| "ClusterIP".to_owned()),
        selector: spec.selector.unwrap_or_default(),
        node_ports: spec
            .ports
            .unwrap_or_default()
            .into_iter()
            .filter_map(|p| p.node_port)
            .filter(|p| *p != 0)
            .collect(),
        external_traffic_policy: spec.external_traffic_policy,
        health_check_node_port: spec.health_check_node_port.filter(|p| *p != 0),
        annotations,
    }
}

/// Reads a PersistentVolume: what holds its data, and the zones and nodes it can be used on.
pub fn to_volume(v: core::v1::PersistentVolume) -> Volume {
    let spec = v.spec.unwrap_or_default();
    // In-tree volumes get a driver's name too, so that each kind of storage is known by one field.
    let (driver, handle) = if let Some(csi) = spec.csi {
        (Some(csi.driver), Some(csi.volume_handle))
    } else if let Some(ebs) = spec.aws_elastic_block_store {
        (
            Some("kubernetes.io/aws-ebs".to_owned()),
            Some(ebs.volume_id),
        )
    } else if let Some(nfs) = spec.nfs {
        (
            Some("kubernetes.io/nfs".to_owned()),
            Some(format!("{}:{}", nfs.server, nfs.path)),
        )
    } else if let Some(local) = spec.local {
        (
            Some("kubernetes.io/local-volume".to_owned()),
            Some(local.path),
        )
    } else if let Some(host) = spec.host_path {
        (Some("kubernetes.io/host-path".to_owned()), Some(host.path))
    } else {
        (None, None)
    };
    // Where the volume can be used: its node affinity says it, by zone or by node.
    let (mut zones, mut nodes) = (BTreeSet::new(), BTreeSet::new());
    let required = spec.node_affinity.and_then(|a| a.required);
    let node_affinity = required.map(to_node_selector);
    let terms = node_affinity.iter().flat_map(|a| &a.terms);
    for expression in terms
        .flat_map(|t| &t.expressions)
        .filter(|e| e.operator == "In")
    {
        let values = expression.values.iter().cloned();
        if VOLUME_ZONE_KEYS.contains(&expression.key.as_str()) {
            zones.extend(values);
        } else if expression.key == HOSTNAME_LABEL {
            nodes.extend(values);
        }
    }
    // In-tree volumes have it as a label; several zones are joined by two underscores.
    if zones.is_empty() {
        let label = v
            .metadata
            .labels
            .iter()
            .flatten()
            .find(|(key, _)| VOLUME_ZONE_KEYS.contains(&key.as_str()));
        zones.extend(
            label
                .iter()
                .flat_map(|(_, value)| value.split("__"))
                .map(str::to_owned),
        );
    }
    // A volume without a whole claim reference is bound to nobody.
    let claim = spec
        .claim_ref
        .and_then(|c| Some(NamespacedName::new(c.namespace?, c.name?)));
    Volume {
        name: v.metadata.name.unwrap_or_default(),
        claim,
        driver,
        handle,
        zones: zones.into_iter().collect(),
        nodes: nodes.into_iter().collect(),
        node_affinity,
        access_modes: spec.access_modes.unwrap_or_default(),
    }
}

/// Reads a VolumeAttachment. One that is still there counts, whether it is attached already or not (K8S-VOL-1).
pub fn to_attachment(a: storage::v1::VolumeAttachment) -> Attachment {
    Attachment {
        name: a.metadata.name.unwrap_or_default(),
        node: a.spec.node_name,
        volume: a.spec.source.persistent_volume_name,
        attached: a.status.is_some_and(|s| s.attached),
    }
}

/// A TargetGroupBinding, which no generated type describes.
pub fn to_target_group_binding(b: Value) -> TargetGroupBinding {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let (meta, spec) = (&b["metadata"], &b["spec"]);
    let nodes: Option<LabelSelector> = spec
        .get("nodeSelector")
        .and_then(|s| Deserialize::deserialize(s).ok());
    TargetGroupBinding {
        key: NamespacedName::new(
            text(&meta["namespace"]).unwrap_or_default(),
            text(&meta["name"]).unwrap_or_default(),
        ),
        target_group_arn: text(&spec["targetGroupARN"]),
        target_type: text(&spec["targetType"]),
        service: text(&spec["serviceRef"]["name"]),
        node_selector: nodes.map(to_selector),
        multi_cluster: spec["multiClusterTargetGroup"].as_bool().unwrap_or(false),
    }
}

/// A CSINode: its node's name, and how many volumes it takes of each driver that says so.
pub fn volume_limits(node: storage::v1::CSINode) -> (String, BTreeMap<String, i64>) {
    let drivers = node.spec.drivers.into_iter();
    let limits = drivers.filter_map(|d| Some((d.name, i64::from(d.allocatable?.count?))));
    (node.metadata.name.unwrap_or_default(), limits.collect())
}
