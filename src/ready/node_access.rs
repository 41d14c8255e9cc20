//! Whether the nodes of a self-managed green may join the cluster: the role of their instance profile needs an access entry
//! or a row of aws-auth, and without it they only never appear (SELF-3).

use super::Finding;
use super::codes::Code;
use super::input::ReadinessInput;
use crate::model::node_source::NodeSource;
use crate::route;

/// Judges by blue's nodes: where they have joined, so do others of the same instance profile.
pub fn check_node_access(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let changes = case.changes.iter();
    for change in changes.filter(|c| c.blue.source == NodeSource::AutoScalingGroup) {
        let inventory = case.inventory;
        let plan_entry = case.plan.node_group(&change.blue.name);
        let blue = route::launch_template_of(inventory, change.blue);
        let green = route::launch_template_of_green(inventory, change.blue, &plan_entry);
        let profile_of_blue = blue.and_then(|t| t.options.instance_profile.as_deref());
        let profile_of_green = green.and_then(|t| t.options.instance_profile.as_deref());
        let mut nodes = inventory.nodes_of(&change.blue.name);
        let why = match (profile_of_blue, profile_of_green) {
            (Some(blue), Some(green)) if profile_name(blue) != profile_name(green) => {
                format!("green's instance profile is {green} and blue's {blue}")
            }
            // Where the template was read, it names none.
            (Some(blue), None) if green.is_some() => {
                format!("green's launch template names no instance profile, and blue's is {blue}")
            }
            _ if !nodes.any(|n| n.is_ready()) => {
                "blue has no Ready node, which would show that its role may".to_owned()
            }
            _ => continue,
        };
        out.push(Finding::new(
            Code::NodeAccess,
            format!("{} {}", change.blue.source.group_words(), change.blue.name),
            format!("{why}: it is unknown whether the role of green's nodes may join the cluster; where it may not, they never appear, and nothing says why"),
            format!(
                "make sure that the profile's role has an access entry of type EC2_LINUX or EC2_WINDOWS (`aws eks list-access-entries --cluster-name {}`), or a row of aws-auth with the group system:nodes",
                case.plan.cluster
            ),
        ));
    }
}

/// A template may spell the same profile by its name or its ARN.
fn profile_name(profile: &str) -> &str {
    profile.rsplit('/').next().unwrap_or(profile)
}
