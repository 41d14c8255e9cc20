//! What a handback is made from: the route of the last run, and what AWS says now.

use std::collections::BTreeMap;

use super::node_pools::ReplacedPool;
use crate::model::asg::Asg;
use crate::model::ec2::LaunchTemplateVersion;
use crate::model::eks::Nodegroup;
use crate::model::group_owner::GroupOwner;
use crate::model::node_source::NodeSource;
use crate::model::{AddonVersion, Minor};
use crate::route::{Route, StepSpec};

/// A value, or why it is not known.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading<T> {
    Known(T),
    Unknown(String),
}

/// The last run of a cluster, and the cluster as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct HandbackFacts {
    pub cluster: String,
    pub region: String,
    pub run: String,
    /// The control plane's version before the run, and now.
    pub from: Minor,
    pub version: Minor,
    /// The cluster has the tag that terraform-aws-modules/eks gives to the clusters it makes.
    pub of_terraform_module: bool,
    pub addons: Vec<AddonFact>,
    pub groups: Vec<ReplacedGroup>,
    pub pools: Vec<ReplacedPool>,
}

/// An add-on that the run changed.
#[derive(Clone, Debug, PartialEq)]
pub struct AddonFact {
    pub name: String,
    pub was: AddonVersion,
    pub now: Reading<AddonVersion>,
}

/// What became of blue.
#[derive(Clone, Debug, PartialEq)]
pub enum BlueState {
    Gone,
    /// It is still there, such as a group that is kept at zero.
    There(Box<Nodegroup>),
    Unknown(String),
}

/// A group that the run replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplacedGroup {
    pub moved: GroupMove,
    pub blue: BlueState,
    pub green: Reading<Box<Nodegroup>>,
    /// The version of the launch template that green has; none where it has no template.
    pub template: Option<Reading<LaunchTemplateVersion>>,
    /// Green's own Auto Scaling group, of a self-managed one.
    pub asg: Option<Reading<Box<Asg>>>,
}

impl ReplacedGroup {
    /// The stack that the run has deleted with blue.
    pub fn deleted_stack(&self) -> Option<&str> {
        let gone = self.moved.with_stack && matches!(self.blue, BlueState::Gone);
        let owner = self.moved.owner.as_ref().filter(|_| gone)?;
        owner.stack()
    }
}

/// What a group is in AWS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    ManagedGroup,
    AutoScalingGroup,
}

impl GroupKind {
    /// Whether EKS runs the group.
    pub fn is_managed(self) -> bool {
        self == Self::ManagedGroup
    }
}

/// Blue and the green that has its place, as the route says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMove {
    /// The group that was there before the run.
    pub blue: String,
    /// The last green. On a long way there were others in between, which the run made and deleted.
    pub green: String,
    pub source: GroupKind,
    pub owner: Option<GroupOwner>,
    /// The launch template of which the run made a version for green.
    pub made_template: Option<String>,
    /// The run deletes blue's CloudFormation stack with it.
    pub with_stack: bool,
}

/// The groups that the route moves, each from before the run to the last green. `stands` says of a step's id whether what
/// it made is there.
pub fn moved_groups(route: &Route, stands: impl Fn(&str) -> bool) -> Vec<GroupMove> {
    // By the group that has the place now: the group that had it before the run.
    let mut origins: BTreeMap<&str, &str> = BTreeMap::new();
    let mut moves: Vec<GroupMove> = Vec::new();
    for step in &route.steps {
        let StepSpec::CreateGreen {
            blue,
            group,
            template_from,
            ..
        } = &step.spec
        else {
            continue;
        };
        // No tool of AWS owns a NodePool: `moved_pools` has them.
        let kind = match route.source_of(&group.name) {
            NodeSource::ManagedGroup => GroupKind::ManagedGroup,
            NodeSource::AutoScalingGroup => GroupKind::AutoScalingGroup,
            NodeSource::NodePool => continue,
        };
        if !stands(&step.id) {
            continue;
        }
        let origin = origins.remove(blue.as_str()).unwrap_or(blue);
        origins.insert(&group.name, origin);
        moves.retain(|m| m.blue != origin);
        moves.push(GroupMove {
            blue: origin.to_owned(),
            green: group.name.clone(),
            source: kind,
            owner: route.owners.get(origin).cloned(),
            made_template: template_from.clone(),
            with_stack: { route.steps.iter() }
                .any(|s| matches!(&s.spec, StepSpec::DeleteStack { blue, .. } if blue == origin)),
        });
    }
    moves
}

/// The NodePools that the route replaces, each from before the run to the last green. `stands` as in [`moved_groups`].
pub fn moved_pools(route: &Route, stands: impl Fn(&str) -> bool) -> Vec<(String, String)> {
    let mut moves: Vec<(String, String)> = Vec::new();
    let made = route.steps.iter().filter(|step| stands(&step.id));
    for step in made {
        let StepSpec::CreateGreen { blue, group, .. } = &step.spec else {
            continue;
        };
        if route.source_of(&group.name) != NodeSource::NodePool {
            continue;
        }
        // On a long way a green is the blue of the next.
        match moves.iter_mut().find(|(_, green)| green == blue) {
            Some((_, green)) => green.clone_from(&group.name),
            None => moves.push((blue.clone(), group.name.clone())),
        }
    }
    moves
}

/// The add-ons that the route changes, each with its version of before the run.
pub fn changed_addons(route: &Route) -> Vec<(String, AddonVersion)> {
    let mut first: Vec<(String, AddonVersion)> = Vec::new();
    for step in &route.steps {
        if let StepSpec::Addon { from, change, .. } = &step.spec
            && first.iter().all(|(name, _)| *name != change.name)
        {
            first.push((change.name.clone(), from.clone()));
        }
    }
    first
}

impl HandbackFacts {
    /// The add-ons whose version is another one now, or is not known.
    pub fn moved_addons(&self) -> impl Iterator<Item = &AddonFact> {
        self.addons
            .iter()
            .filter(|a| a.now != Reading::Known(a.was.clone()))
    }
}

impl ReplacedGroup {
    /// Tags of the tool that green does not have, because the run leaves them out. AWS keeps its own tags to itself.
    pub fn missing_tags(&self) -> BTreeMap<&str, &str> {
        let Reading::Known(green) = &self.green else {
            return BTreeMap::new();
        };
        let owned = self.moved.owner.iter().flat_map(|o| &o.tags);
        owned
            .filter(|(k, _)| !k.starts_with("aws:") && !green.tags.contains_key(*k))
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect()
    }
}
