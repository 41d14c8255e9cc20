//! What a handback is made from, read from the cluster.

use super::cluster_connection::ClusterConnection;
use super::error::RunError;
use crate::handback::{
    AddonFact, BlueState, GroupKind, GroupMove, HandbackFacts, Reading, ReplacedGroup,
    ReplacedPool, changed_addons, moved_groups, moved_pools,
};
use crate::journal::RunState;
use crate::model::pool_group::pool_manifests;
use crate::model::{ApiError, ErrorClass};
use crate::route::Route;

/// Reads what the run changed, as it is now.
///
/// # Errors
/// Those of reading the cluster. A right that is missing makes a value unknown, and is no error.
pub async fn read_handback_facts(
    reached: &ClusterConnection,
    state: &RunState,
    route: &Route,
) -> Result<HandbackFacts, RunError> {
    let (aws, name) = (&reached.aws, reached.cluster.name.as_str());
    // The connection may have been made before a hop that is under way.
    let cluster = aws.describe_cluster(name).await?;
    let mut addons = Vec::new();
    for (addon, was) in changed_addons(route) {
        let now = read(aws.describe_addon(name, &addon).await)?;
        let now = match now {
            Reading::Known(now) => Reading::Known(now.version),
            Reading::Unknown(why) => Reading::Unknown(why),
        };
        addons.push(AddonFact {
            name: addon,
            was,
            now,
        });
    }
    let stands = |id: &str| state.find_step(id).is_some_and(|s| s.status.is_over());
    let mut groups = Vec::new();
    for moved in moved_groups(route, stands) {
        groups.push(read_group(reached, moved).await?);
    }
    let pools = read_pools(reached, moved_pools(route, stands)).await?;
    Ok(HandbackFacts {
        cluster: name.to_owned(),
        region: cluster.arn.split(':').nth(3).unwrap_or("").to_owned(),
        run: state.run.clone(),
        from: route.from,
        version: cluster.version,
        of_terraform_module: cluster.tags.contains_key("terraform-aws-modules"),
        addons,
        groups,
        pools,
    })
}

/// Reads the greens of NodePools, as their source would have them.
async fn read_pools(
    reached: &ClusterConnection,
    moved: Vec<(String, String)>,
) -> Result<Vec<ReplacedPool>, RunError> {
    if moved.is_empty() {
        return Ok(Vec::new());
    }
    let objects = read(reached.kube.list_karpenter().await)?;
    let manifests_of = |green: &str| match &objects {
        Reading::Known(objects) => match pool_manifests(objects, green) {
            Some(manifests) => Reading::Known(manifests),
            None => Reading::Unknown("as it is not there any more".to_owned()),
        },
        Reading::Unknown(why) => Reading::Unknown(why.clone()),
    };
    let pools = moved.into_iter().map(|(blue, green)| ReplacedPool {
        manifests: manifests_of(&green),
        blue,
        green,
    });
    Ok(pools.collect())
}

/// Reads blue, green, and what green is launched from.
async fn read_group(
    reached: &ClusterConnection,
    moved: GroupMove,
) -> Result<ReplacedGroup, RunError> {
    let (aws, cluster) = (&reached.aws, reached.cluster.name.as_str());
    let read_one = async |name: &str| {
        let found = match moved.source {
            GroupKind::ManagedGroup => aws.read_managed_group(cluster, name).await,
            GroupKind::AutoScalingGroup => aws.read_self_managed_group(name).await,
        };
        read(found)
    };
    let blue = read_one(&moved.blue).await?;
    let blue = match blue {
        Reading::Known(Some(blue)) => BlueState::There(Box::new(blue)),
        Reading::Known(None) => BlueState::Gone,
        Reading::Unknown(why) => BlueState::Unknown(why),
    };
    let green = read_one(&moved.green).await?;
    let green = match green {
        Reading::Known(Some(green)) => Reading::Known(Box::new(green)),
        Reading::Known(None) => Reading::Unknown("as it is not there any more".to_owned()),
        Reading::Unknown(why) => Reading::Unknown(why),
    };
    let template = match (&green, &moved.made_template) {
        (Reading::Known(green), Some(made)) => {
            let version = green.launch_template.as_ref();
            let version = version.and_then(|t| t.version.as_deref());
            // One that was made of a launch configuration is known by its name until it is made.
            let id = green.launch_template.as_ref().and_then(|t| t.id.as_ref());
            match version {
                Some(version) => Some(read(
                    aws.describe_launch_template_version(id.unwrap_or(made), version)
                        .await,
                )?),
                None => Some(Reading::Unknown("which the group does not name".to_owned())),
            }
        }
        (Reading::Known(_) | Reading::Unknown(_), _) => None,
    };
    let asg = match moved.source {
        GroupKind::ManagedGroup => None,
        GroupKind::AutoScalingGroup => {
            let names = [moved.green.clone()];
            let found = read(aws.describe_asgs(&names).await)?;
            Some(match found {
                Reading::Known(mut found) => match found.remove(&moved.green) {
                    Some(asg) => Reading::Known(Box::new(asg)),
                    None => Reading::Unknown("as it is not there any more".to_owned()),
                },
                Reading::Unknown(why) => Reading::Unknown(why),
            })
        }
    };
    Ok(ReplacedGroup {
        moved,
        blue,
        green,
        template,
        asg,
    })
}

/// A right that is missing or an object that is gone makes a value unknown, and not the rest with it.
fn read<T>(answer: Result<T, ApiError>) -> Result<Reading<T>, RunError> {
    match answer {
        Ok(value) => Ok(Reading::Known(value)),
        Err(error) if matches!(error.class, ErrorClass::Denied | ErrorClass::Absent) => Ok(
            Reading::Unknown(format!("as it could not be read ({error})")),
        ),
        Err(error) => Err(error.into()),
    }
}
