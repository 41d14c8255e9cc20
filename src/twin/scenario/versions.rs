//! The bundled cluster at another minor.

use serde_json::json;

use super::catalog;
use super::grow::list_mut;
use crate::model::snapshot::Snapshot;
use crate::model::{AddonVersion, Minor};

/// Takes the control plane, the nodes and the add-ons of the bundled cluster to `minor`, whose catalogue must be complete.
pub fn move_to_minor(s: &mut Snapshot, minor: u16) {
    let to = Minor::new(minor);
    let from = s.inventory.cluster.version;
    let patch = catalog::patch_release(minor).unwrap_or_default();
    let i = &mut s.inventory;
    (i.cluster.version, i.server_version) = (to, Some(to));
    for group in &mut i.nodegroups {
        group.version = Some(to);
        group.release_version = Some(format!("{patch}-20250620"));
    }
    // The insights are about the next version.
    for insight in &mut i.insights {
        insight.kubernetes_version = Some(to.next());
        for text in [&mut insight.name, &mut insight.description] {
            *text = text.replace(&format!("v{}", from.next()), &format!("v{}", to.next()));
        }
    }
    // Each add-on gets the version that is the default there, unless its own goes with the minor.
    let mut images = Vec::new();
    for addon in &mut i.addons {
        let offers = i.addon_catalog.get(&addon.name).and_then(|c| c.get(&to));
        let offers = offers.map(Vec::as_slice).unwrap_or_default();
        let stays = addon.name != "kube-proxy" && offers.iter().any(|o| o.version == addon.version);
        let default = offers.iter().find(|o| o.default).or(offers.first());
        if let Some(default) = default.filter(|_| !stays) {
            images.push((addon.version.to_string(), default.version.to_string()));
            addon.version = AddonVersion::new(default.version.to_string());
        }
    }
    for node in list_mut(s, "/api/v1/nodes") {
        let info = &mut node["status"]["nodeInfo"];
        info["kubeletVersion"] = json!(format!("v{patch}-eks-473151a"));
        info["kubeProxyVersion"] = info["kubeletVersion"].clone();
    }
    for path in [
        "/api/v1/pods",
        "/apis/apps/v1/daemonsets",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
    ] {
        // An image can stand at any depth of an object, so it is replaced in its text.
        for object in list_mut(s, path) {
            let mut text = object.to_string();
            for (old, new) in &images {
                text = text.replace(&format!(":{old}\""), &format!(":{new}\""));
            }
            if let Ok(changed) = serde_json::from_str(&text) {
                *object = changed;
            }
        }
    }
}
