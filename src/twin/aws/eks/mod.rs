//! EKS.

mod access;
mod addon;
mod addon_schema;
mod ami_types;
mod auto_rollback;
mod cluster;
mod config;
mod create_group;
mod fargate;
mod group;
mod group_launch;
mod group_rules;
mod insights;
mod rollback_insights;
mod rolling_update;
mod show;
mod tags;
mod update;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::call::{AwsService, Input};
use super::error::AwsError;
use super::group_marks::LabelTaintChange;
use super::state::{EksCluster, ManagedNodegroup};
use super::unknown_operation;
use crate::model::Minor;
use crate::twin::world::SimWorld;

pub use access::{access_kind_for_nodes, admits_role, remove_access_entry};
pub use config::schedule_size_sync;
pub use group::on_instances_gone;

/// Something that will happen in EKS.
#[derive(Clone, Debug)]
pub enum EksEvent {
    /// DescribeCluster shows this status and version from now on.
    ClusterStatusShown {
        status: &'static str,
        version: Option<Minor>,
    },
    /// The API servers of the new version take over.
    ServersSwitched { to: Minor },
    /// A look whether Auto Mode's nodes have been rolled back.
    AutoNodesRechecked { update: String },
    /// The cancellation of a rollback is through.
    RollbackCancelled { update: String },
    /// The control plane's update is over.
    ClusterUpdated { update: String },
    /// DescribeNodegroup shows this status from now on, unless something else happened to it.
    GroupStatusShown {
        group: String,
        from: &'static str,
        to: &'static str,
    },
    /// DescribeNodegroup shows that the group is being deleted.
    GroupDeletionShown { group: String },
    /// The group's Auto Scaling group is made.
    GroupBuilt { group: String },
    /// A look whether the new group's nodes have joined.
    GroupRechecked { group: String, deadline: Timestamp },
    /// A change of the group's configuration is through.
    GroupConfigured { group: String, update: String },
    /// Labels and taints reach the live nodes.
    GroupMarked {
        group: String,
        marks: LabelTaintChange,
    },
    /// DescribeNodegroup shows the sizes that somebody else gave the group's Auto Scaling group.
    SizesSynced { group: String },
    /// The next node of a version update.
    GroupRolled {
        group: String,
        update: String,
        stage: rolling_update::RollingStage,
    },
    /// Nothing of the group is left.
    GroupGone { group: String },
    /// A look whether the add-on's workload has rolled out.
    AddonRechecked {
        addon: String,
        update: String,
        began: Timestamp,
    },
    /// The refresh of insights is over.
    InsightsRefreshed,
}

/// Makes `due` happen.
pub fn handle_event(world: &mut SimWorld, due: EksEvent) {
    match due {
        EksEvent::ClusterStatusShown { status, version } => {
            cluster::show_status(world, status, version);
        }
        EksEvent::ServersSwitched { to } => cluster::switch_servers(world, to),
        EksEvent::AutoNodesRechecked { update } => auto_rollback::recheck_nodes(world, &update),
        EksEvent::RollbackCancelled { update } => {
            auto_rollback::finish_cancellation(world, &update);
        }
        EksEvent::ClusterUpdated { update } => cluster::finish_version_update(world, &update),
        EksEvent::GroupStatusShown { group, from, to } => {
            group::show_status(world, &group, from, to);
        }
        EksEvent::GroupDeletionShown { group } => group::show_deletion(world, &group),
        EksEvent::GroupBuilt { group } => group_launch::launch_group(world, &group),
        EksEvent::GroupRechecked { group, deadline } => {
            group_launch::check_nodes_joined(world, &group, deadline);
        }
        EksEvent::GroupConfigured { group, update } => {
            config::finish_config_update(world, &group, &update);
        }
        EksEvent::GroupMarked { group, marks } => config::mark_nodes(world, &group, &marks),
        EksEvent::SizesSynced { group } => config::sync_sizes(world, &group),
        EksEvent::GroupRolled {
            group,
            update,
            stage,
        } => rolling_update::continue_update(world, &group, &update, stage),
        EksEvent::GroupGone { group } => group::remove_group(world, &group),
        EksEvent::AddonRechecked {
            addon,
            update,
            began,
        } => addon::check_rollout(world, &addon, &update, began),
        EksEvent::InsightsRefreshed => insights::finish_refresh(world),
    }
}

/// Answers for EKS.
pub fn run_operation(world: &mut SimWorld, op: &str, input: Input) -> Result<Value, AwsError> {
    // Operations that change something take a token, except for the deletions (EKS-CP-13).
    match op {
        "ListClusters" => cluster::list(world, input),
        "DescribeCluster" => cluster::describe(world, input),
        "DescribeClusterVersions" => cluster::describe_versions(world, input),
        "UpdateClusterVersion" => run_once_per_token(world, op, input, cluster::update),
        "DescribeUpdate" => update::describe(world, input),
        "ListUpdates" => update::list(world, input),
        "CancelUpdate" => auto_rollback::cancel(world, input),
        "ListInsights" => insights::list(world, input),
        "DescribeInsight" => insights::describe(world, input),
        "StartInsightsRefresh" => insights::start_refresh(world, input),
        "DescribeInsightsRefresh" => insights::describe_refresh(world, input),
        "ListNodegroups" => group::list(world, input),
        "DescribeNodegroup" => group::describe(world, input),
        "CreateNodegroup" => run_once_per_token(world, op, input, create_group::create),
        "UpdateNodegroupConfig" => run_once_per_token(world, op, input, config::update),
        "UpdateNodegroupVersion" => run_once_per_token(world, op, input, rolling_update::update),
        "DeleteNodegroup" => group::delete(world, input),
        "ListAddons" => addon::list(world, input),
        "DescribeAddon" => addon::describe(world, input),
        "DescribeAddonVersions" => addon::describe_versions(world, input),
        "DescribeAddonConfiguration" => addon::describe_configuration(world, input),
        "UpdateAddon" => run_once_per_token(world, op, input, addon::update),
        "ListFargateProfiles" => fargate::list(world, input),
        "DescribeFargateProfile" => fargate::describe(world, input),
        "ListAccessEntries" => access::list(world, input),
        "DescribeAccessEntry" => access::describe(world, input),
        "CreateAccessEntry" => run_once_per_token(world, op, input, access::create),
        "DeleteAccessEntry" => access::delete(world, input),
        "ListPodIdentityAssociations" => tags::list_pod_identities(world, input),
        "ListTagsForResource" => tags::list_tags(world, input),
        "TagResource" => tags::tag_resource(world, input),
        "UntagResource" => tags::untag_resource(world, input),
        _ => Err(unknown_operation(AwsService::Eks, op)),
    }
}

/// A node has joined: a group that was DEGRADED is well again (EKS-NG-22).
pub fn clear_degraded(world: &mut SimWorld, name: &str) {
    let Some(group) = find_group(world, name).filter(|g| g.degraded) else {
        return;
    };
    group.degraded = false;
    group.health.clear();
    let group = name.to_owned();
    let shows = EksEvent::GroupStatusShown {
        group,
        from: "DEGRADED",
        to: "ACTIVE",
    };
    schedule_between(world, 30, 90, shows);
}

/// DeleteNodegroup, by somebody else's hand.
pub fn delete_group(world: &mut SimWorld, input: &Value) -> Result<Value, AwsError> {
    group::delete(world, Input(input))
}

/// Does what a request asks only once per `clientRequestToken`: the same request again gets the same answer.
fn run_once_per_token(
    world: &mut SimWorld,
    op: &str,
    input: Input,
    act: fn(&mut SimWorld, Input) -> Result<Value, AwsError>,
) -> Result<Value, AwsError> {
    // A request without a token is done each time.
    let Some(token) = input.get_text("clientRequestToken") else {
        return act(world, input);
    };
    let key = (op.to_owned(), token.to_owned());
    // A JSON object's text is ordered by key here, so equal requests have equal text.
    let asked = input.0.to_string();
    // The same token with another request is an error.
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
    // A request that failed may be sent again with its token.
    let answer = act(world, input)?;
    if let Some(eks) = &mut world.cloud.eks {
        eks.tokens.insert(key, (asked, answer.clone()));
    }
    Ok(answer)
}

/// The cluster a request names, by `name` or `clusterName`.
fn requested_cluster<'w>(
    world: &'w mut SimWorld,
    input: Input,
) -> Result<&'w mut EksCluster, AwsError> {
    let name = input
        .get_text("clusterName")
        .or(input.get_text("name"))
        .unwrap_or_default();
    match &mut world.cloud.eks {
        Some(eks) if eks.name == name => Ok(eks),
        Some(_) | None => Err(
            AwsError::not_found(format!("No cluster found for name: {name}."))
                .with_member("clusterName", name),
        ),
    }
}

/// The node group a request names.
fn requested_group<'w>(
    world: &'w mut SimWorld,
    input: Input,
) -> Result<&'w mut ManagedNodegroup, AwsError> {
    let name = input.get_text("nodegroupName").unwrap_or_default();
    let eks = requested_cluster(world, input)?;
    let cluster = eks.name.clone();
    eks.nodegroups.get_mut(name).ok_or_else(|| {
        AwsError::not_found(format!("No node group found for name: {name}."))
            .with_member("clusterName", cluster)
            .with_member("nodegroupName", name)
    })
}

/// A node group of the one cluster, where it is still there.
fn find_group<'w>(world: &'w mut SimWorld, name: &str) -> Option<&'w mut ManagedNodegroup> {
    world.cloud.eks.as_mut()?.nodegroups.get_mut(name)
}

/// Lets `due` happen after `wait`.
fn schedule_after(world: &mut SimWorld, wait: Duration, due: EksEvent) {
    world.schedule_after(
        wait,
        crate::twin::world::ScheduledEvent::Cloud(super::CloudEvent::Eks(due)),
    );
}

/// Lets `due` happen between `from` and `to` seconds from now.
fn schedule_between(world: &mut SimWorld, from: u64, to: u64, due: EksEvent) {
    let wait = world.random_duration(Duration::from_secs(from), Duration::from_secs(to));
    schedule_after(world, wait, due);
}
