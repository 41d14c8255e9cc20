//! Add-ons: the catalogue, and taking one to another version by rolling out its workloads.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    EksEvent, addon_schema, requested_cluster, schedule_after, schedule_between, show,
    update as updates,
};
use crate::model::{AddonVersion, Minor};
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube::{self, AddonPart};
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{
    CatalogAddon, CatalogAddonVersion, EksIssue, InstalledAddon, UpdateOwner,
};
use crate::twin::k8s::cloud_hooks::AddonWorkload;
use crate::twin::world::SimWorld;

const ROLLOUT_RECHECK_INTERVAL: Duration = Duration::from_secs(5);
/// When EKS calls an add-on whose workload does not come up degraded, and when it gives up (EKS-ADD-5).
const DEGRADED_AFTER: SignedDuration = SignedDuration::from_mins(3);
const FAILED_AFTER: SignedDuration = SignedDuration::from_mins(20);

/// The workloads of an add-on, all in kube-system.
fn addon_workloads(addon: &str) -> Vec<AddonPart> {
    let deployment = |name, container| AddonPart {
        kind: AddonWorkload::Deployment,
        name,
        container,
    };
    let daemon_set = |name, container| AddonPart {
        kind: AddonWorkload::DaemonSet,
        name,
        container,
    };
    // A driver has a controller and a DaemonSet, which are rolled out together.
    match addon {
        "vpc-cni" => vec![daemon_set("aws-node", "aws-node")],
        "kube-proxy" => vec![daemon_set("kube-proxy", "kube-proxy")],
        "coredns" => vec![deployment("coredns", "coredns")],
        "aws-ebs-csi-driver" => vec![
            deployment("ebs-csi-controller", "ebs-plugin"),
            daemon_set("ebs-csi-node", "ebs-plugin"),
        ],
        "aws-efs-csi-driver" => vec![
            deployment("efs-csi-controller", "efs-plugin"),
            daemon_set("efs-csi-node", "efs-plugin"),
        ],
        "eks-pod-identity-agent" => vec![daemon_set(
            "eks-pod-identity-agent",
            "eks-pod-identity-agent",
        )],
        "metrics-server" => vec![deployment("metrics-server", "metrics-server")],
        _ => Vec::new(),
    }
}

/// ListAddons.
pub fn list(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let page = cut_page(
        eks.addons.keys(),
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"addons": page.items, "nextToken": page.next}))
}

/// DescribeAddon.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let name = input.get_text("addonName").unwrap_or_default();
    match eks.addons.get(name) {
        Some(addon) => Ok(json!({"addon": show::show_addon(eks, addon)})),
        None => Err(addon_not_found(&eks.name, name)),
    }
}

fn addon_not_found(cluster: &str, name: &str) -> AwsError {
    AwsError::not_found(format!("No addon: {name} found in cluster: {cluster}"))
        .with_member("clusterName", cluster)
        .with_member("addonName", name)
}

/// DescribeAddonVersions; it needs no cluster.
pub fn describe_versions(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    // A version that cannot be read is an error; one that no add-on suits gives an empty list.
    let minor = match input.get_text("kubernetesVersion") {
        Some(text) => Some(text.parse::<Minor>().map_err(|_| {
            AwsError::invalid_parameter(format!(
                "Kubernetes version specified is not supported: {text}"
            ))
        })?),
        None => None,
    };
    let (wanted, types) = (input.get_text("addonName"), input.get_text_list("types"));
    let offered: Vec<(&String, &CatalogAddon)> = world
        .cloud
        .eks
        .iter()
        .flat_map(|eks| &eks.catalog)
        .filter(|(name, _)| wanted.is_none_or(|w| w == *name))
        .collect();
    // An add-on that does not exist is an error, unlike one that has no version for this minor.
    if let Some(wanted) = wanted.filter(|_| offered.is_empty()) {
        return Err(
            AwsError::not_found(format!("Addon {wanted} specified is not supported"))
                .with_member("addonName", wanted),
        );
    }
    let shown = offered
        .into_iter()
        .filter(|(_, o)| types.is_empty() || types.contains(&o.kind))
        .filter_map(|(name, o)| show_catalog_addon(name, o, minor));
    let page = cut_page(
        shown,
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"addons": page.items, "nextToken": page.next}))
}

fn show_catalog_addon(name: &str, offered: &CatalogAddon, minor: Option<Minor>) -> Option<Value> {
    // Only versions that suit the minor are shown, and of each only the compatibilities that were asked for
    // (EKS-ADD-1).
    let versions: Vec<Value> = offered
        .versions
        .iter()
        .filter(|v| minor.is_none_or(|m| v.minors.contains_key(&m)))
        .map(|v| {
            let fits = v.minors.iter().rev().filter(|(m, _)| minor.is_none_or(|only| only == **m));
            let compatibilities: Vec<Value> = fits.map(|(m, default)| json!({"clusterVersion": m, "platformVersions": ["*"], "defaultVersion": default})).collect();
            json!({
                "addonVersion": v.version,
                "architecture": v.architectures,
                "computeTypes": ["ec2", "hybrid"],
                "compatibilities": compatibilities,
                "requiresConfiguration": v.requires_configuration,
                "requiresIamPermissions": v.requires_iam,
            })
        })
        .collect();
    (!versions.is_empty()).then(|| {
        json!({
            "addonName": name,
            "type": offered.kind,
            "addonVersions": versions,
            "publisher": "eks",
            "owner": "aws",
            "defaultNamespace": "kube-system",
        })
    })
}

fn find_catalog_version<'w>(
    world: &'w SimWorld,
    name: &str,
    version: &str,
) -> Result<&'w CatalogAddonVersion, AwsError> {
    let found = world.cloud.eks.as_ref().and_then(|eks| {
        eks.catalog
            .get(name)?
            .versions
            .iter()
            .find(|v| v.version.as_str() == version)
    });
    found.ok_or_else(|| {
        AwsError::invalid_parameter("Addon version specified is not supported")
            .with_member("addonName", name)
    })
}

/// DescribeAddonConfiguration.
pub fn describe_configuration(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let (name, version) = (
        input.get_text("addonName").unwrap_or_default(),
        input.get_text("addonVersion").unwrap_or_default(),
    );
    find_catalog_version(world, name, version)?;
    Ok(
        json!({"addonName": name, "addonVersion": version, "configurationSchema": configuration_schema(world, name, version), "podIdentityConfiguration": []}),
    )
}

/// The schema of a version of an add-on: the snapshot's, else what is known of the add-on. Empty where it takes none.
fn configuration_schema(world: &SimWorld, name: &str, version: &str) -> String {
    let eks = world.cloud.eks.as_ref();
    let seen = eks.and_then(|eks| eks.schemas.get(name)?.get(version));
    let running = eks.and_then(|eks| eks.addons.get(name));
    let known = || addon_schema::build_schema(name, version, running).to_string();
    seen.cloned().unwrap_or_else(known)
}

/// UpdateAddon.
pub fn update(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let eks = requested_cluster(world, input)?;
    let (cluster, minor) = (eks.name.clone(), eks.version);
    let name = input.get_text("addonName").unwrap_or_default();
    let addon = eks
        .addons
        .get(name)
        .cloned()
        .ok_or_else(|| addon_not_found(&cluster, name))?;
    // Every refusal names the cluster and the add-on, as EKS's errors do.
    let named = |error: AwsError| {
        error
            .with_member("clusterName", cluster.clone())
            .with_member("addonName", name)
    };
    // One update at a time, of the add-on and of the cluster.
    if let Some(running) = updates::running_update(eks, &UpdateOwner::Addon(name.to_owned())) {
        return Err(named(AwsError::in_use(format!(
            "Addon {name} cannot be updated as it currently has update {} in progress",
            running.id
        ))));
    }
    if eks.running.is_some() {
        return Err(named(AwsError::invalid_request(format!(
            "Addon {name} cannot be updated as cluster {cluster} is currently being updated"
        ))));
    }
    // Without a version the add-on keeps the one that it has, and only its configuration changes.
    let to = input
        .get_text("addonVersion")
        .unwrap_or(addon.version.as_str());
    if !find_catalog_version(world, name, to)?
        .minors
        .contains_key(&minor)
    {
        return Err(named(AwsError::invalid_parameter(
            "Addon version specified is not supported",
        )));
    }
    let to = AddonVersion::new(to);
    // The CNI goes one minor at a time (EKS-ADD-6).
    if name == "vpc-cni" && minors_apart(&addon.version, &to) > 1 {
        return Err(named(AwsError::invalid_parameter(
            "Updating VPC-CNI can only go up or down 1 minor version at a time",
        )));
    }
    // The documentation does not agree on the default, so NONE, the strictest, is taken (EKS-ADD-2).
    let resolve = input.get_text("resolveConflicts").unwrap_or("NONE");
    if !["NONE", "OVERWRITE", "PRESERVE"].contains(&resolve) {
        return Err(named(AwsError::invalid_parameter(format!(
            "resolveConflicts {resolve} is not supported"
        ))));
    }
    // The values are checked against the schema of the new version, even those that are kept from before (EKS-ADD-4).
    let configuration = input.get_text("configurationValues");
    if let Some(configuration) = configuration.or(addon.configuration.as_deref()) {
        let schema = configuration_schema(world, name, to.as_str());
        addon_schema::check_values(&schema, configuration)
            .map_err(|why| named(AwsError::invalid_parameter(why)))?;
    }
    // The parameters are what DescribeUpdate shows of the request.
    let mut params = vec![
        ("AddonVersion".to_owned(), to.to_string()),
        ("ResolveConflicts".to_owned(), resolve.to_owned()),
    ];
    if let Some(role) = input.get_text("serviceAccountRoleArn") {
        params.push(("ServiceAccountRoleArn".into(), role.to_owned()));
    }
    if let Some(configuration) = configuration {
        params.push(("ConfigurationValues".into(), configuration.to_owned()));
    }
    // The version is shown at once, while the update still runs.
    let now = world.now();
    if let Some(addon) = world
        .cloud
        .eks
        .as_mut()
        .and_then(|eks| eks.addons.get_mut(name))
    {
        addon.status = "UPDATING".into();
        addon.health.clear();
        addon.modified = now;
        addon.version = to.clone();
        // Left out, the role falls back to the node's; the configuration stays as it was.
        addon.role = input.get_text("serviceAccountRoleArn").map(str::to_owned);
        if let Some(configuration) = configuration {
            addon.configuration = (configuration != "{}").then(|| configuration.to_owned());
        }
    }
    // The update is over when the workloads have rolled out, which the events below look at.
    let id = updates::begin_update(
        world,
        UpdateOwner::Addon(name.to_owned()),
        "AddonUpdate",
        params,
    );
    // A workload that the cluster does not have is left out.
    for part in addon_workloads(name) {
        kube::set_addon_image(world, part, to.as_str());
    }
    schedule_between(
        world,
        20,
        90,
        EksEvent::AddonRechecked {
            addon: name.to_owned(),
            update: id.clone(),
            began: now,
        },
    );
    let eks = requested_cluster(world, input)?;
    Ok(updates::update_answer(eks, &id))
}

fn minors_apart(a: &AddonVersion, b: &AddonVersion) -> u64 {
    match (a.parse_semver(), b.parse_semver()) {
        (Some(a), Some(b)) if a.major == b.major => a.minor.abs_diff(b.minor),
        (Some(_), Some(_)) => u64::MAX,
        (Some(_) | None, None) | (None, Some(_)) => 0,
    }
}

/// Whether the add-on's workloads have rolled out by now.
pub fn check_rollout(world: &mut SimWorld, name: &str, update: &str, began: Timestamp) {
    // The add-on is healthy once each of its workloads runs the new version everywhere.
    let missing: Vec<&str> = addon_workloads(name)
        .into_iter()
        .filter(|part| !kube::is_rolled_out(world, *part))
        .map(|part| part.name)
        .collect();
    // An add-on that does not get ready turns DEGRADED first, and fails later (EKS-ADD-5).
    let waited = world.now().duration_since(began);
    let issue = EksIssue {
        code: "InsufficientNumberOfReplicas".into(),
        message: "The add-on is unhealthy because it doesn't have the desired number of replicas."
            .into(),
        resources: missing.iter().map(|w| (*w).to_owned()).collect(),
    };
    let healthy = missing.is_empty();
    let over = healthy || waited >= FAILED_AFTER;
    if let Some(addon) = world
        .cloud
        .eks
        .as_mut()
        .and_then(|eks| eks.addons.get_mut(name))
    {
        update_health(addon, healthy, waited, &issue);
    }
    // The update ends either way; until then it is looked at again.
    if over {
        updates::end_update(
            world,
            update,
            if healthy { Vec::new() } else { vec![issue] },
        );
    } else {
        schedule_after(
            world,
            ROLLOUT_RECHECK_INTERVAL,
            EksEvent::AddonRechecked {
                addon: name.to_owned(),
                update: update.to_owned(),
                began,
            },
        );
    }
}

fn update_health(
    addon: &mut InstalledAddon,
    healthy: bool,
    waited: SignedDuration,
    issue: &EksIssue,
) {
    if healthy {
        addon.status = "ACTIVE".into();
        addon.health.clear();
    } else if waited >= FAILED_AFTER {
        addon.status = "UPDATE_FAILED".into();
        addon.health = vec![issue.clone()];
    } else if waited >= DEGRADED_AFTER {
        addon.status = "DEGRADED".into();
        addon.health = vec![issue.clone()];
    }
}
