//! The control plane: DescribeCluster, versions, and taking it one minor up or back (EKS-CP-1, EKS-RB-1).

use std::time::Duration;

use serde_json::{Value, json};

use super::show;
use super::{Due, after, cluster_of, insights, readiness, update as updates, within};
use crate::model::Minor;
use crate::twin::aws::call::Input;
use crate::twin::aws::error::AwsError;
use crate::twin::aws::kube;
use crate::twin::aws::page::page;
use crate::twin::aws::state::{Eks, Issue, Owner};
use crate::twin::world::World;

/// How long the API server is away while its instances are replaced.
const OUTAGE: Duration = Duration::from_secs(3);

/// ListClusters.
pub fn list(world: &World, input: Input) -> Result<Value, AwsError> {
    let names = world.cloud.eks.iter().map(|eks| &eks.name);
    let page = page(
        names,
        input.text("nextToken"),
        input.number("maxResults").unwrap_or(100),
    )?;
    Ok(json!({"clusters": page.items, "nextToken": page.next}))
}

/// DescribeCluster.
pub fn describe(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let endpoint = world.cloud.endpoint.clone();
    let eks = cluster_of(world, input)?;
    Ok(json!({"cluster": show::cluster(eks, endpoint.as_deref())}))
}

/// DescribeClusterVersions.
pub fn versions(world: &World, input: Input) -> Result<Value, AwsError> {
    let wanted = input.texts("clusterVersions");
    let status = input.text("versionStatus").map(str::to_owned).or_else(|| {
        input
            .text("status")
            .map(|s| s.replace('-', "_").to_uppercase())
    });
    let default_only = input.truth("defaultOnly") == Some(true);
    let all = input.truth("includeAll") == Some(true) || !wanted.is_empty() || status.is_some();
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
    let page = page(
        versions,
        input.text("nextToken"),
        input.number("maxResults").unwrap_or(100),
    )?;
    let shown: Vec<Value> = page
        .items
        .iter()
        .map(|v| {
            let mut out = show::members(json!({
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
                    out.insert(name.into(), show::time(at));
                }
            }
            Value::Object(out)
        })
        .collect();
    Ok(json!({"clusterVersions": shown, "nextToken": page.next}))
}

/// UpdateClusterVersion.
pub fn update(world: &mut World, input: Input) -> Result<Value, AwsError> {
    let (now, must_match) = (world.now(), world.cloud.switches.node_groups_must_match);
    let eks = cluster_of(world, input)?;
    let asked = input.text("version").unwrap_or_default();
    let unsupported = || {
        AwsError::invalid_parameter(format!(
            "Unsupported Kubernetes minor version update from {} to {asked}",
            eks.version
        ))
    };
    if let Some(running) = &eks.running {
        return Err(AwsError::in_use(format!(
            "Cannot VersionUpdate because cluster {} currently has update {running} in progress",
            eks.name
        ))
        .with("clusterName", eks.name.clone()));
    }
    if eks.status != "ACTIVE" {
        return Err(
            AwsError::in_use(format!("Cluster '{}' is not in ACTIVE status", eks.name))
                .with("clusterName", eks.name.clone()),
        );
    }
    let to: Minor = asked.parse().map_err(|_| {
        AwsError::invalid_parameter(format!("unsupported Kubernetes version {asked}"))
    })?;
    let forced = input.truth("force") == Some(true);
    let (kind, category) = match to.ahead_of(eks.version) {
        1 => ("VersionUpdate", "UPGRADE_READINESS"),
        -1 => {
            let back = readiness::open(eks, now).filter(|from| *from == to);
            back.ok_or_else(unsupported)?;
            supported_for(eks, to)?;
            ("VersionRollback", "ROLLBACK_READINESS")
        }
        _ => return Err(unsupported()),
    };
    if !eks
        .versions
        .iter()
        .any(|v| v.version == to && v.status != "UNSUPPORTED")
    {
        return Err(unsupported());
    }
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
    insights::judge(world);
    let eks = cluster_of(world, input)?;
    let blocking = |status: &str| {
        status == "ERROR" || (status == "UNKNOWN" && category == "ROLLBACK_READINESS")
    };
    let blocks = eks.insights.iter().any(|i| {
        i.category == category && blocking(&i.status) && i.version.is_none_or(|v| v == to)
    });
    if blocks && !forced {
        return Err(AwsError::new(
            400,
            "InvalidStateException",
            "Amazon EKS detected upgrade readiness issues. Call the ListInsights API to view detected upgrade blocking issues. Pass the force flag while updating to override upgrade readiness errors.",
        )
        .with("clusterName", eks.name.clone()));
    }
    begin(world, kind, to)
}

/// A version in extended support is gone back to only by a cluster whose policy is EXTENDED. The wording is not known.
fn supported_for(eks: &Eks, to: Minor) -> Result<(), AwsError> {
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
        .with("clusterName", eks.name.clone()));
    }
    Ok(())
}

/// Lets the update begin: it shows with a lag, and ends after eight to twelve minutes (EKS-CP-10).
fn begin(world: &mut World, kind: &str, to: Minor) -> Result<Value, AwsError> {
    let params = vec![
        ("Version".to_owned(), to.to_string()),
        ("PlatformVersion".to_owned(), platform(to)),
    ];
    let id = updates::begin(world, Owner::Cluster, kind, params);
    within(
        world,
        1,
        4,
        Due::ClusterShows {
            status: "UPDATING",
            version: None,
        },
    );
    let takes = world.between(Duration::from_secs(8 * 60), Duration::from_secs(12 * 60));
    if world.cloud.switches.control_plane_fails.is_empty() {
        let moved =
            takes.saturating_sub(world.between(Duration::from_secs(5), Duration::from_secs(20)));
        after(world, moved, Due::ServersMove { to });
    }
    after(world, takes, Due::ClusterUpdated { update: id.clone() });
    let Some(eks) = &mut world.cloud.eks else {
        return Err(AwsError::not_found("No cluster"));
    };
    eks.running = Some(id.clone());
    Ok(updates::answer(eks, &id))
}

fn platform(version: Minor) -> String {
    format!("eks.{}", 50_u16.saturating_sub(version.number()))
}

/// The API servers of the other version take over: a short outage, cut watches, another `/version`.
pub fn servers_move(world: &mut World, to: Minor) {
    kube::set_server_version(world, to);
    kube::outage(world, OUTAGE);
}

/// The update is over; DescribeCluster says so a little later.
pub fn updated(world: &mut World, id: &str) {
    let now = world.now();
    let failures = &mut world.cloud.switches.control_plane_fails;
    let failure = if failures.is_empty() {
        None
    } else {
        Some(failures.remove(0))
    };
    let Some(eks) = &mut world.cloud.eks else {
        return;
    };
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
    if let Some(code) = failure {
        let subnets = eks
            .rest
            .get("resourcesVpcConfig")
            .and_then(|v| v.get("subnetIds"))
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let issue = Issue {
            message: failure_message(&code),
            code,
            resources: subnets
                .iter()
                .filter_map(|s| s.as_str().map(str::to_owned))
                .collect(),
        };
        updates::end(world, id, vec![issue]);
        within(
            world,
            1,
            6,
            Due::ClusterShows {
                status: "ACTIVE",
                version: None,
            },
        );
        return;
    }
    if let Some(to) = target {
        eks.upgraded = if rollback {
            None
        } else {
            Some((to.previous(), now))
        };
    }
    updates::end(world, id, Vec::new());
    within(
        world,
        1,
        6,
        Due::ClusterShows {
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
pub fn shows(world: &mut World, status: &'static str, version: Option<Minor>) {
    let Some(eks) = &mut world.cloud.eks else {
        return;
    };
    eks.status = status.into();
    if let Some(version) = version {
        moved(eks, version);
        insights::judge(world);
    }
}

fn moved(eks: &mut Eks, version: Minor) {
    eks.version = version;
    eks.rest
        .insert("platformVersion".into(), json!(platform(version)));
}
