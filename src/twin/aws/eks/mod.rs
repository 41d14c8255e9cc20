//! EKS.

mod addon;
mod addon_schema;
mod build;
mod cluster;
mod config;
mod create;
mod group;
mod insights;
mod readiness;
mod roll;
pub mod routes;
mod show;
mod tags;
mod update;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::call::{Input, Service};
use super::error::AwsError;
use super::state::{Eks, Nodegroup};
use super::unknown;
use crate::model::Minor;
use crate::twin::world::World;

pub use config::{Marks, sizes_follow, taint};
pub use group::emptied;

/// Something that will happen in EKS.
#[derive(Clone, Debug)]
pub enum Due {
    /// DescribeCluster shows this status and version from now on.
    ClusterShows {
        status: &'static str,
        version: Option<Minor>,
    },
    /// The API servers of the new version take over.
    ServersMove { to: Minor },
    /// The control plane's update is over.
    ClusterUpdated { update: String },
    /// DescribeNodegroup shows this status from now on, unless something else happened to it.
    GroupShows {
        group: String,
        from: &'static str,
        to: &'static str,
    },
    /// The group's Auto Scaling group is made.
    GroupBuilt { group: String },
    /// A look whether the new group's nodes have joined.
    GroupLooked { group: String, deadline: Timestamp },
    /// A change of the group's configuration is through.
    GroupConfigured { group: String, update: String },
    /// Labels and taints reach the live nodes.
    GroupMarked { group: String, marks: config::Marks },
    /// DescribeNodegroup shows the sizes that somebody else gave the group's Auto Scaling group.
    SizesShow { group: String },
    /// The next node of a version update.
    GroupRolled {
        group: String,
        update: String,
        stage: roll::Stage,
    },
    /// Nothing of the group is left.
    GroupGone { group: String },
    /// A look whether the add-on's workload has rolled out.
    AddonLooked {
        addon: String,
        update: String,
        began: Timestamp,
    },
    /// The refresh of insights is over.
    InsightsRefreshed,
}

/// Makes `due` happen.
pub fn happen(world: &mut World, due: Due) {
    match due {
        Due::ClusterShows { status, version } => cluster::shows(world, status, version),
        Due::ServersMove { to } => cluster::servers_move(world, to),
        Due::ClusterUpdated { update } => cluster::updated(world, &update),
        Due::GroupShows { group, from, to } => group::shows(world, &group, from, to),
        Due::GroupBuilt { group } => build::built(world, &group),
        Due::GroupLooked { group, deadline } => build::looked(world, &group, deadline),
        Due::GroupConfigured { group, update } => config::configured(world, &group, &update),
        Due::GroupMarked { group, marks } => config::marked(world, &group, &marks),
        Due::SizesShow { group } => config::sizes_show(world, &group),
        Due::GroupRolled {
            group,
            update,
            stage,
        } => roll::rolled(world, &group, &update, stage),
        Due::GroupGone { group } => group::gone(world, &group),
        Due::AddonLooked {
            addon,
            update,
            began,
        } => addon::looked(world, &addon, &update, began),
        Due::InsightsRefreshed => insights::refreshed(world),
    }
}

/// Answers for EKS.
pub fn run(world: &mut World, op: &str, input: Input) -> Result<Value, AwsError> {
    match op {
        "ListClusters" => cluster::list(world, input),
        "DescribeCluster" => cluster::describe(world, input),
        "DescribeClusterVersions" => cluster::versions(world, input),
        "UpdateClusterVersion" => once(world, op, input, cluster::update),
        "DescribeUpdate" => update::describe(world, input),
        "ListUpdates" => update::list(world, input),
        "CancelUpdate" => update::cancel(world, input),
        "ListInsights" => insights::list(world, input),
        "DescribeInsight" => insights::describe(world, input),
        "StartInsightsRefresh" => insights::refresh(world, input),
        "DescribeInsightsRefresh" => insights::describe_refresh(world, input),
        "ListNodegroups" => group::list(world, input),
        "DescribeNodegroup" => group::describe(world, input),
        "CreateNodegroup" => once(world, op, input, create::create),
        "UpdateNodegroupConfig" => once(world, op, input, config::update),
        "UpdateNodegroupVersion" => once(world, op, input, roll::update),
        "DeleteNodegroup" => group::delete(world, input),
        "ListAddons" => addon::list(world, input),
        "DescribeAddon" => addon::describe(world, input),
        "DescribeAddonVersions" => addon::versions(world, input),
        "DescribeAddonConfiguration" => addon::configuration(world, input),
        "UpdateAddon" => once(world, op, input, addon::update),
        "ListFargateProfiles" => tags::fargate_profiles(world, input),
        "DescribeFargateProfile" => tags::fargate_profile(world, input),
        "ListAccessEntries" => tags::nothing_listed(world, input, "accessEntries"),
        "ListPodIdentityAssociations" => tags::pod_identities(world, input),
        "ListTagsForResource" => tags::list(world, input),
        "TagResource" => tags::tag(world, input),
        "UntagResource" => tags::untag(world, input),
        _ => Err(unknown(Service::Eks, op)),
    }
}

/// A node has joined: a group that was DEGRADED is well again (EKS-NG-22).
pub fn scaled_out(world: &mut World, name: &str) {
    let Some(group) = group_named(world, name).filter(|g| g.degraded) else {
        return;
    };
    group.degraded = false;
    group.health.clear();
    let group = name.to_owned();
    let shows = Due::GroupShows {
        group,
        from: "DEGRADED",
        to: "ACTIVE",
    };
    within(world, 30, 90, shows);
}

/// DeleteNodegroup, by somebody else's hand.
pub fn delete_group(world: &mut World, input: &Value) -> Result<Value, AwsError> {
    group::delete(world, Input(input))
}

/// Does what a request asks only once per `clientRequestToken`: the same request again gets the same answer.
fn once(
    world: &mut World,
    op: &str,
    input: Input,
    act: fn(&mut World, Input) -> Result<Value, AwsError>,
) -> Result<Value, AwsError> {
    let Some(token) = input.text("clientRequestToken") else {
        return act(world, input);
    };
    let key = (op.to_owned(), token.to_owned());
    // A JSON object's text is ordered by key here, so equal requests have equal text.
    let asked = input.0.to_string();
    if let Some((before, answer)) = world
        .cloud
        .eks
        .as_ref()
        .and_then(|eks| eks.tokens.get(&key))
    {
        return if *before == asked {
            Ok(answer.clone())
        } else {
            Err(AwsError::invalid_parameter(format!(
                "The clientRequestToken {token} was already used with different parameters."
            )))
        };
    }
    let answer = act(world, input)?;
    if let Some(eks) = &mut world.cloud.eks {
        eks.tokens.insert(key, (asked, answer.clone()));
    }
    Ok(answer)
}

/// The cluster a request names, by `name` or `clusterName`.
fn cluster_of<'w>(world: &'w mut World, input: Input) -> Result<&'w mut Eks, AwsError> {
    let name = input
        .text("clusterName")
        .or(input.text("name"))
        .unwrap_or_default();
    match &mut world.cloud.eks {
        Some(eks) if eks.name == name => Ok(eks),
        Some(_) | None => Err(
            AwsError::not_found(format!("No cluster found for name: {name}."))
                .with("clusterName", name),
        ),
    }
}

/// The node group a request names.
fn group_of<'w>(world: &'w mut World, input: Input) -> Result<&'w mut Nodegroup, AwsError> {
    let name = input.text("nodegroupName").unwrap_or_default();
    let eks = cluster_of(world, input)?;
    let cluster = eks.name.clone();
    eks.nodegroups.get_mut(name).ok_or_else(|| {
        AwsError::not_found(format!("No node group found for name: {name}."))
            .with("clusterName", cluster)
            .with("nodegroupName", name)
    })
}

/// A node group of the one cluster, where it is still there.
fn group_named<'w>(world: &'w mut World, name: &str) -> Option<&'w mut Nodegroup> {
    world.cloud.eks.as_mut()?.nodegroups.get_mut(name)
}

/// Lets `due` happen after `wait`.
fn after(world: &mut World, wait: Duration, due: Due) {
    world.after(wait, crate::twin::world::Due::Cloud(super::Due::Eks(due)));
}

/// Lets `due` happen between `from` and `to` seconds from now.
fn within(world: &mut World, from: u64, to: u64, due: Due) {
    let wait = world.between(Duration::from_secs(from), Duration::from_secs(to));
    after(world, wait, due);
}
