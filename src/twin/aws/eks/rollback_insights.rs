//! Insights on rollback: they exist for seven days after an upgrade ended, and EKS judges them again when it is asked
//! to roll back.
//!
//! Divergence: a snapshot does not say when its cluster was upgraded, so a world begins without a rollback, and the
//! rollback insights of the snapshot are gone. "Incompatible API usage" passes until a test says otherwise.

use jiff::{SignedDuration, Timestamp};

use crate::model::{AddonVersion, Minor};
use crate::twin::aws::kube;
use crate::twin::aws::state::{ClusterInsight, EksCluster};
use crate::twin::world::SimWorld;

/// How long after an upgrade EKS can still roll it back (EKS-RB-1).
const ROLLBACK_WINDOW: SignedDuration = SignedDuration::from_hours(7 * 24);
const ROLLBACK_CATEGORY: &str = "ROLLBACK_READINESS";
const API_USAGE_INSIGHT: &str = "Incompatible API usage";

/// The version EKS can still take the control plane back to.
pub fn rollback_version(eks: &EksCluster, now: Timestamp) -> Option<Minor> {
    eks.upgraded
        .filter(|(_, at)| now.duration_since(*at) <= ROLLBACK_WINDOW)
        .map(|(from, _)| from)
}

/// Takes the insights away once the time is over.
pub fn expire_rollback_insights(world: &mut SimWorld) {
    let now = world.now();
    if let Some(eks) = &mut world.cloud.eks
        && rollback_version(eks, now).is_none()
    {
        eks.insights.retain(|i| i.category != ROLLBACK_CATEGORY);
    }
}

/// Judges again.
pub fn judge_rollback_insights(world: &mut SimWorld) {
    expire_rollback_insights(world);
    // The kubelets are looked at in the cluster, since nodes outside of managed groups block as well (EKS-RB-4).
    let (now, kubelets) = (world.now(), kube::kubelet_minors(world));
    // Auto Mode's nodes are rolled back by the rollback itself (EKS-RB-8).
    let rolled_back = kube::auto_mode_nodes(world);
    let Some(eks) = &mut world.cloud.eks else {
        return;
    };
    let Some(back) = rollback_version(eks, now) else {
        return;
    };
    // API usage cannot be judged: what a test set stays as it was.
    let apis = eks
        .insights
        .iter()
        .find(|i| i.category == ROLLBACK_CATEGORY && i.name == API_USAGE_INSIGHT)
        .cloned();
    // All insights of the category are made again, so that none is left from an upgrade before.
    eks.insights.retain(|i| i.category != ROLLBACK_CATEGORY);
    let newer: Vec<String> = kubelets
        .into_iter()
        .filter(|(node, kubelet)| *kubelet > back && !rolled_back.contains(node))
        .map(|(node, _)| format!("/api/v1/nodes/{node}"))
        .collect();
    let kubelet = if newer.is_empty() {
        (
            "PASSING",
            "Node kubelet versions are compatible with the rollback version.",
        )
    } else {
        (
            "ERROR",
            "At least one node kubelet version matches the cluster control plane version.",
        )
    };
    // A kube-proxy newer than its API server has a judgement of its own (EKS-ADD-7).
    let (unfit, proxies) = incompatible_addons(eks, back);
    let addon = if unfit.is_empty() {
        (
            "PASSING",
            "All installed EKS add-on versions are compatible with the rollback version.",
        )
    } else {
        (
            "ERROR",
            "One or more installed EKS add-on versions are not compatible with the rollback version.",
        )
    };
    let proxy = if proxies.is_empty() {
        (
            "PASSING",
            "kube-proxy is not newer than the rollback version.",
        )
    } else {
        ("ERROR", "kube-proxy is newer than the rollback version.")
    };
    let mut made = vec![
        ("Kubelet version rollback compatibility", kubelet, newer),
        ("EKS add-on version rollback compatibility", addon, unfit),
        ("kube-proxy version rollback skew", proxy, proxies),
    ];
    let (status, reason, resources) = apis.map_or(
        (
            "PASSING".to_owned(),
            "No API that the rollback version lacks is in use.".to_owned(),
            Vec::new(),
        ),
        |i| (i.status, i.reason, i.resources),
    );
    made.push((
        API_USAGE_INSIGHT,
        (status.as_str(), reason.as_str()),
        resources,
    ));
    // The ids are the same for the same insight, so that a caller can describe what it listed.
    for (n, (name, (status, reason), resources)) in made.into_iter().enumerate() {
        eks.insights.push(ClusterInsight {
            id: format!("4c1b8a52-77f0-4e0c-9d52-{:012}", n + 1),
            name: name.to_owned(),
            category: ROLLBACK_CATEGORY.to_owned(),
            version: Some(back),
            status: status.to_owned(),
            reason: reason.to_owned(),
            description: format!("Checks whether the cluster can be rolled back to {back}."),
            recommendation: String::new(),
            resources,
            refreshed: now,
        });
    }
}

/// Add-ons that the rollback version does not run, and kube-proxies that are newer than it.
fn incompatible_addons(eks: &EksCluster, back: Minor) -> (Vec<String>, Vec<String>) {
    // A version that the catalogue does not list is one that this snapshot did not record: nothing can be said of it.
    let runs = |name: &str, version: &AddonVersion| {
        let offered = eks.catalog.get(name);
        let listed = offered.and_then(|o| o.versions.iter().find(|v| v.version == *version));
        listed.is_none_or(|v| v.minors.is_empty() || v.minors.contains_key(&back))
    };
    // The kube-proxy's version is the minor that it was built for (EKS-ADD-7).
    let newer = |version: &AddonVersion| {
        Minor::from_reported(version.as_str()).is_ok_and(|minor| minor > back)
    };
    let unfit = eks.addons.values().filter(|a| !runs(&a.name, &a.version));
    let proxies = eks
        .addons
        .values()
        .filter(|a| a.name == "kube-proxy" && newer(&a.version));
    (
        unfit.map(|a| a.arn.clone()).collect(),
        proxies.map(|a| a.arn.clone()).collect(),
    )
}
