//! A pod's emptyDir and hostPath volumes.

use k8s_openapi::api::core::v1;

use crate::model::volumes::{NodeVolume, NodeVolumeSource, VolumeMount};

/// The volumes of a pod that live on its node, with their mounts.
pub fn to_node_volumes(spec: &v1::PodSpec) -> Vec<NodeVolume> {
    let volumes = spec.volumes.iter().flatten();
    volumes
        .filter_map(|volume| {
            Some(NodeVolume {
                name: volume.name.clone(),
                source: to_node_volume_source(volume)?,
                mounts: collect_mounts(spec, &volume.name),
            })
        })
        .collect()
}

fn to_node_volume_source(volume: &v1::Volume) -> Option<NodeVolumeSource> {
    match (&volume.empty_dir, &volume.host_path) {
        (Some(empty), _) => Some(NodeVolumeSource::EmptyDir {
            medium: empty.medium.clone().unwrap_or_default(),
            size_limited: empty.size_limit.is_some(),
        }),
        (None, Some(host)) => Some(NodeVolumeSource::HostPath {
            path: host.path.clone(),
            path_type: host.type_.clone().unwrap_or_default(),
        }),
        (None, None) => None,
    }
}

fn collect_mounts(spec: &v1::PodSpec, volume: &str) -> Vec<VolumeMount> {
    let running = spec.containers.iter().map(|c| (c, false));
    // A sidecar is written as an init container that always restarts.
    let init = spec.init_containers.iter().flatten();
    let init = init.map(|c| (c, c.restart_policy.as_deref() != Some("Always")));
    let mounts_of = |c: &v1::Container, init: bool| -> Vec<VolumeMount> {
        let mounts = c.volume_mounts.iter().flatten();
        mounts
            .filter(|m| m.name == volume)
            .map(|m| VolumeMount {
                path: m.mount_path.clone(),
                read_only: m.read_only.unwrap_or(false),
                init,
            })
            .collect()
    };
    running
        .chain(init)
        .flat_map(|(container, init)| mounts_of(container, init))
        .collect()
}
