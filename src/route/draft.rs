//! A route while it is being drawn: the steps so far, and how the world will be when they are done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::other_node_kinds::OtherNodes;
use super::problem::{Obstacle, RouteProblem};
use super::{RouteStep, StepSpec};
use crate::model::node_source::NodeSource;
use crate::model::{AddonVersion, Inventory, Minor};
use crate::plan::Plan;

/// A route while it is being drawn.
pub struct RouteDraft<'a> {
    pub plan: &'a Plan,
    pub inventory: &'a Inventory,
    pub steps: Vec<RouteStep>,
    pub notes: Vec<String>,
    pub problems: Vec<RouteProblem>,
    /// The control plane, after the steps so far.
    pub at: Minor,
    /// Managed add-ons, after the steps so far.
    pub addons: BTreeMap<String, AddonVersion>,
    /// Names of node groups, after the steps so far.
    pub groups: BTreeSet<String>,
    /// Those of them that are self-managed and move.
    pub self_managed: BTreeSet<String>,
    /// Those of them that are NodePools.
    pub node_pools: BTreeSet<String>,
    /// Other nodes that come at this version and have no step yet.
    pub other_nodes: Vec<OtherNodes>,
    /// Node group to the target groups its instances are in, after the steps so far.
    pub targets_by_group: BTreeMap<String, BTreeSet<String>>,
    /// By the pair's place: the target group that has the traffic, after the steps so far.
    pub live_target_groups: Vec<String>,
}

/// A step without its id.
pub struct StepDraft {
    pub title: String,
    pub touches: Vec<String>,
    pub why: Option<String>,
    pub no_return: Option<String>,
    pub estimate: Duration,
    pub spec: StepSpec,
}

impl StepDraft {
    /// A step that needs no more words.
    pub fn new(
        title: impl Into<String>,
        touches: impl IntoIterator<Item = String>,
        estimate: Duration,
        spec: StepSpec,
    ) -> Self {
        Self {
            title: title.into(),
            touches: touches.into_iter().collect(),
            why: None,
            no_return: None,
            estimate,
            spec,
        }
    }

    /// Says why it stands where it does.
    pub fn with_reason(mut self, why: impl Into<String>) -> Self {
        self.why = Some(why.into());
        self
    }

    /// Says why it cannot be rolled back.
    pub fn with_no_return(mut self, why: impl Into<String>) -> Self {
        self.no_return = Some(why.into());
        self
    }
}

impl<'a> RouteDraft<'a> {
    /// Returns a draft without steps, notes or problems.
    pub fn new(plan: &'a Plan, inventory: &'a Inventory) -> Self {
        Self {
            plan,
            inventory,
            steps: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
            at: inventory.cluster.version,
            addons: inventory
                .addons
                .iter()
                .map(|a| (a.name.clone(), a.version.clone()))
                .collect(),
            groups: inventory
                .nodegroups
                .iter()
                .map(|g| g.name.clone())
                .collect(),
            self_managed: BTreeSet::new(),
            node_pools: BTreeSet::new(),
            other_nodes: Vec::new(),
            targets_by_group: BTreeMap::new(),
            live_target_groups: Vec::new(),
        }
    }

    /// Adds a step. An id that is in use gets the control plane's version, and then a number.
    pub fn push_step(&mut self, id: impl Into<String>, step_draft: StepDraft) {
        let wanted = id.into();
        let at = self.at;
        let taken = |id: &str| self.steps.iter().any(|s| s.id == id);
        // Ids name steps in journals and in `--until`, so they come from what the step does and not from its place.
        let id = [wanted.clone(), format!("{wanted}-{at}")]
            .into_iter()
            .chain((2..).map(|n| format!("{wanted}-{at}-{n}")))
            .find(|id| !taken(id))
            .unwrap_or(wanted);
        let StepDraft {
            title,
            touches,
            why,
            no_return,
            estimate,
            spec,
        } = step_draft;
        self.steps.push(RouteStep {
            id,
            title,
            touches,
            why,
            no_return,
            estimate,
            spec,
        });
    }

    /// Remembers who makes the nodes of a group of the route.
    pub fn note_source(&mut self, group: &str, source: NodeSource) {
        let of_kind = match source {
            NodeSource::ManagedGroup => return,
            NodeSource::AutoScalingGroup => &mut self.self_managed,
            NodeSource::NodePool => &mut self.node_pools,
        };
        of_kind.insert(group.to_owned());
    }

    /// Adds a note.
    pub fn add_note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    /// Adds a note unless one that begins alike is there.
    pub fn add_note_once(&mut self, text: impl Into<String>) {
        let text = text.into();
        let head: String = text.chars().take(50).collect();
        if !self.notes.iter().any(|n| n.starts_with(&head)) {
            self.notes.push(text);
        }
    }

    /// Adds a problem.
    pub fn add_problem(
        &mut self,
        what: Obstacle,
        subject: impl Into<String>,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let problem = RouteProblem {
            what,
            subject: subject.into(),
            detail: detail.into(),
            fix: fix.into(),
        };
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }

    /// Whether a problem with this object is known already.
    pub fn has_problem_with(&self, subject: &str) -> bool {
        self.problems.iter().any(|p| p.subject == subject)
    }
}
