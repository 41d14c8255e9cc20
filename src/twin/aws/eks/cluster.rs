//! The control plane: DescribeCluster, versions, and taking it one minor up or back (EKS-CP-1, EKS-RB-1).

use std::time::Duration;

use serde_json::{Value, json};

use super::show;
use super::{
    EksEvent, auto_rollback, insights, requested_cluster, rollback_insights, schedule_after,
    schedule_between, update as updates,
};
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube;
use crate::twin::aws::page::cut_page;
use crate::twin::aws::state::{EksCluster, EksIssue, UpdateOwner};
use crate::twin::world::SimWorld;

/// How long the API server is away while its instances are replaced.
const SERVER_SWITCH_OUTAGE: Duration = Duration::from_secs(3);

/// ListClusters.
pub fn list(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    let names = world.cloud.eks.iter().map(|eks| &eks.name);
    let page = cut_page(
        names,
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"clusters": page.items, "nextToken": page.next}))
}

/// DescribeCluster.
pub fn describe(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let endpoint = world.cloud.endpoint.clone();
    let eks = requested_cluster(world, input)?;
    Ok(json!({"cluster": show::show_cluster(eks, endpoint.as_deref())}))
}

/// DescribeClusterVersions.
pub fn describe_versions(world: &SimWorld, input: Input) -> Result<Value, AwsError> {
    // Two filters say the same status in two spellings; the older one is written in lower case with dashes.
    let wanted = input.get_text_list("clusterVersions");
    let status = input
        .get_text("versionStatus")
        .map(str::to_owned)
        .or_else(|| {
            input
                .get_text("status")
                .map(|s| s.replace('-', "_").to_uppercase())
        });
    // Versions that are not supported any more are shown only to those that ask for them.
    let default_only = input.get_bool("defaultOnly") == Some(true);
    let all = input.get_bool("includeAll") == Some(true) || !wanted.is_empty() || status.is_some();
    let versions = world
        .cloud
        .eks
        .iter()
        .flat_map(|eks| &eks.versions)
        .filter(|v| {
            (wanted.is_empty() || wanted.contains(&v.version.to_string()))
                && status.as_ref().is_none_or(|s| *s == v.status)
                && (!default_only || v.default)
                && (all || v.status != "UNSUPPORTED")
        });
    let page = cut_page(
        versions,
        input.get_text("nextToken"),
        input.get_number("maxResults").unwrap_or(100),
    )?;
    // Both spellings of the status are in the answer, as clients read either.
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|v| {
            let mut out = show::into_members(json!({
                "clusterVersion": v.version,
                "clusterType": "eks",
                "defaultPlatformVersion": format!("eks.{}", 50_u16.saturating_sub(v.version.number())),
                "defaultVersion": v.default,
                "status": v.status.to_lowercase().replace('_', "-"),
                "versionStatus": v.status,
                "kubernetesPatchVersion": v.patch,
            }));
            for (name, at) in [("endOfStandardSupportDate", v.end_of_standard), ("endOfExtendedSupportDate", v.end_of_extended)] {
                if let Some(at) = at {
                    out.insert(name.into(), show::show_time(at));
                }
            }
            Value::Object(out)
        })
        .collect();
    Ok(json!({"clusterVersions": shown, "nextToken": page.next}))
}

/// UpdateClusterVersion.
pub fn update(world: &mut SimWorld, input: Input) -> Result<Value, AwsError> {
    let (now, must_match) = (world.now(), world.cloud.switches.node_groups_must_match);
    let eks = requested_cluster(world, input)?;
    let asked = input.get_text("version").unwrap_or_default();
    let unsupported = || {
        AwsError::invalid_parameter(format!(
            "Unsupported Kubernetes minor version update from {} to {asked}",
            eks.version
        ))
    };
    // An update under way refuses a second one and names it, so the caller can find it again (EKS-CP-6).
    if let Some(running) = &eks.running {
        return Err(AwsError::in_use(format!(
            "Cannot VersionUpdate because cluster {} currently has update {running} in progress",
            eks.name
        ))
        .with_member("clusterName", eks.name.clone()));
    }
    if eks.status != "ACTIVE" {
        return Err(
            AwsError::in_use(format!("Cluster '{}' is not in ACTIVE status", eks.name))
                .with_member("clusterName", eks.name.clone()),
        );
    }
    let to: Minor = asked.parse().map_err(|_| {
        AwsError::invalid_parameter(format!("unsupported Kubernetes version {asked}"))
    })?;
    let forced = input.get_bool("force") == Some(true);
    // Only the next minor and the one before it are possible (EKS-CP-1). The way down needs an upgrade within seven
    // days (EKS-RB-1).
    let (kind, category) = match to.ahead_of(eks.version) {
        1 => ("VersionUpdate", "UPGRADE_READINESS"),
        -1 => {
            let back = rollback_insights::rollback_version(eks, now).filter(|from| *from == to);
            back.ok_or_else(unsupported)?;
            // A rollback to a version in extended support needs that support to be switched on first (EKS-RB-5).
            check_support_policy(eks, to)?;
            ("VersionRollback", "ROLLBACK_READINESS")
        }
        _ => return Err(unsupported()),
    };
    // A version that EKS does not offer is refused in the same words.
    if !eks
        .versions
        .iter()
        .any(|v| v.version == to && v.status != "UNSUPPORTED")
    {
        return Err(unsupported());
    }
    // The old rule that node groups must match is behind a switch, since EKS gave it up (EKS-CP-8).
    if must_match && kind == "VersionUpdate" {
        let older: Vec<&str> = eks
            .nodegroups
            .values()
            .filter(|g| g.version < eks.version)
            .map(|g| g.name.as_str())
            .collect();
        if !older.is_empty() {
            return Err(AwsError::invalid_parameter(format!(
                "Nodegroups {} must be updated to match cluster version {} before updating cluster version",
                older.join(", "),
                eks.version
            )));
        }
    }
    // The insights are judged at this moment: EKS does not rely on what it found earlier.
    insights::judge_insights(world);
    let eks = requested_cluster(world, input)?;
    // An UNKNOWN blocks a rollback and not an upgrade (EKS-RB-3).
    let blocking = |status: &str| {
        status == "ERROR" || (status == "UNKNOWN" && category == "ROLLBACK_READINESS")
    };
    let blocks = eks.insights.iter().any(|i| {
        i.category == category && blocking(&i.status) && i.version.is_none_or(|v| v == to)
    });
    // `force` overrides insights and nothing else (EKS-CP-7).
    if blocks && !forced {
        return Err(AwsError::new(
            400,
            "InvalidStateException",
            "Amazon EKS detected upgrade readiness issues. Call the ListInsights API to view detected upgrade blocking issues. Pass the force flag while updating to override upgrade readiness errors.",
        )
        .with_member("clusterName", eks.name.clone()));
    }
    // With Auto Mode the nodes are rolled back before the control plane (EKS-RB-8).
    if kind == "VersionRollback" && auto_rollback::has_auto_mode(eks) {
        return auto_rollback::begin(world, input, to);
    }
    let id = begin_update(world, kind, to);
    begin_control_plane_update(world, &id, to);
    let answer = world.cloud.eks.as_ref();
    answer
        .map(|eks| updates::update_answer(eks, &id))
        .ok_or_else(|| AwsError::not_found("No cluster"))
}

/// A version in extended support is gone back to only by a cluster whose policy is EXTENDED. The wording is not known.
fn check_support_policy(eks: &EksCluster, to: Minor) -> Result<(), AwsError> {
    let extended = eks
        .versions
        .iter()
        .any(|v| v.version == to && v.status == "EXTENDED_SUPPORT");
    let policy = eks
        .rest
        .get("upgradePolicy")
        .and_then(|p| p.get("supportType"))
        .and_then(Value::as_str);
    if extended && policy == Some("STANDARD") {
        return Err(AwsError::invalid_request(format!(
            "Kubernetes version {to} is in extended support: set the cluster's upgrade policy to EXTENDED before rolling back to it"
        ))
        .with_member("clusterName", eks.name.clone()));
    }
    Ok(())
}

/// Notes an update of the control plane as the running one.
pub fn begin_update(world: &mut SimWorld, kind: &str, to: Minor) -> String {
    let params = vec![
        ("Version".to_owned(), to.to_string()),
        ("PlatformVersion".to_owned(), platform_version(to)),
    ];
    let id = updates::begin_update(world, UpdateOwner::Cluster, kind, params);
    // The update is noted as running, so that a second one is refused from here on.
    if let Some(eks) = &mut world.cloud.eks {
        eks.running = Some(id.clone());
    }
    id
}

/// Lets the control plane's part begin: it shows with a lag, and ends after eight to twelve minutes (EKS-CP-10).
pub fn begin_control_plane_update(world: &mut SimWorld, id: &str, to: Minor) {
    // The cluster's status follows later than the answer, as it is eventually consistent (EKS-CP-2).
    schedule_between(
        world,
        1,
        4,
        EksEvent::ClusterStatusShown {
            status: "UPDATING",
            version: None,
        },
    );
    // The API servers change shortly before the update is over, unless it is going to fail (EKS-CP-3, EKS-CP-4).
    let takes = world.random_duration(Duration::from_secs(8 * 60), Duration::from_secs(12 * 60));
    let failure = take_failure(world);
    if failure.is_none() {
        let moved = takes
            .saturating_sub(world.random_duration(Duration::from_secs(5), Duration::from_secs(20)));
        schedule_after(world, moved, EksEvent::ServersSwitched { to });
    }
    schedule_after(
        world,
        takes,
        EksEvent::ClusterUpdated {
            update: id.to_owned(),
        },
    );
    let update = world.cloud.eks.as_mut();
    if let Some(update) = update.and_then(|eks| eks.updates.get_mut(id)) {
        update.fails_with = failure;
    }
}

/// The next of the failures that are to come, one for each update.
fn take_failure(world: &mut SimWorld) -> Option<String> {
    let failures = &mut world.cloud.switches.control_plane_fails;
    (!failures.is_empty()).then(|| failures.remove(0))
}

fn platform_version(version: Minor) -> String {
    format!("eks.{}", 50_u16.saturating_sub(version.number()))
}

/// The API servers of the other version take over: a short outage, cut watches, another `/version`.
pub fn switch_servers(world: &mut SimWorld, to: Minor) {
    kube::set_server_version(world, to);
    kube::start_outage(world, SERVER_SWITCH_OUTAGE);
}

/// The update is over; DescribeCluster says so a little later.
pub fn finish_version_update(world: &mut SimWorld, id: &str) {
    let now = world.now();
    let Some(eks) = &mut world.cloud.eks else {
        return;
    };
    // The cluster takes another update from here on, though its status still says UPDATING.
    eks.running = None;
    let target = eks.updates.get(id).and_then(|u| {
        u.params
            .iter()
            .find(|(k, _)| k == "Version")?
            .1
            .parse::<Minor>()
            .ok()
    });
    let rollback = eks
        .updates
        .get(id)
        .is_some_and(|u| u.kind == "VersionRollback");
    // A failed update leaves the version as it is (EKS-CP-3).
    if let Some(code) = eks.updates.get(id).and_then(|u| u.fails_with.clone()) {
        let subnets = eks
            .rest
            .get("resourcesVpcConfig")
            .and_then(|v| v.get("subnetIds"))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let issue = EksIssue {
            message: failure_message(&code),
            code,
            resources: subnets
                .iter()
                .filter_map(|s| s.as_str().map(str::to_owned))
                .collect(),
        };
        updates::end_update(world, id, vec![issue]);
        // Auto Mode's nodes follow the control plane again.
        if rollback {
            kube::set_auto_mode_version(world, None);
        }
        schedule_between(
            world,
            1,
            6,
            EksEvent::ClusterStatusShown {
                status: "ACTIVE",
                version: None,
            },
        );
        return;
    }
    // Only an upgrade can be rolled back: after a rollback there is nothing to return to (EKS-RB-1).
    if let Some(to) = target {
        eks.upgraded = if rollback {
            None
        } else {
            Some((to.previous(), now))
        };
    }
    updates::end_update(world, id, Vec::new());
    // After a rollback the nodes stay where they were taken: a reading of the newer version may be minutes old.
    if !rollback {
        kube::set_auto_mode_version(world, None);
    }
    // The version is shown later than the end of the update (EKS-CP-2).
    schedule_between(
        world,
        1,
        6,
        EksEvent::ClusterStatusShown {
            status: "ACTIVE",
            version: target,
        },
    );
}

fn failure_message(code: &str) -> String {
    match code {
        "IpNotAvailable" | "InsufficientFreeAddresses" => {
            "One or more of the subnets associated with your cluster does not have enough available IP addresses for Amazon EKS to perform cluster management operations.".to_owned()
        }
        "SubnetNotFound" => "We couldn't find one of the subnets associated with the cluster.".to_owned(),
        "SecurityGroupNotFound" => "We couldn't find one of the security groups associated with the cluster.".to_owned(),
        "AccessDenied" => "You don't have permissions to perform the specified operation.".to_owned(),
        code => format!("The update failed: {code}"),
    }
}

/// DescribeCluster shows another status, and at the end of an update another version.
pub fn show_status(world: &mut SimWorld, status: &'static str, version: Option<Minor>) {
    let Some(eks) = &mut world.cloud.eks else {
        return;
    };
    eks.status = status.into();
    if let Some(version) = version {
        set_version(eks, version);
        insights::judge_insights(world);
    }
}

fn set_version(eks: &mut EksCluster, version: Minor) {
    eks.version = version;
    eks.rest
        .insert("platformVersion".into(), json!(platform_version(version)));
}
