//! Blue's CloudFormation stack is deleted, and blue with it, once blue has no nodes. All else that the stack holds is kept,
//! because green has blue's role and launch template.

mod change_set;
#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::aws::cloudformation::NewChangeSet;
use crate::engine::{
    Decision, RollbackHistory, Step, StepError, StepHistory, StepRefusal, UndoKind,
};
use crate::model::aws_status::NodegroupStatus;
use crate::model::eks::Nodegroup;
use crate::model::stack::{ChangeSet, StackReading};
use crate::model::stack_template::{StackTemplate, TemplateChange, read_template};
use crate::steps::StepWorld;
use crate::steps::attempts::CallAttempt;
use crate::steps::updates::EKS_POLL_INTERVAL;

/// How long CloudFormation may take for one change before a person is asked.
const STACK_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// What was asked of CloudFormation may show some seconds later.
const STACK_VISIBLE_WITHIN: SignedDuration = SignedDuration::from_secs(30);

/// A step that deletes the stack of blue. Its undo brings the template back while the stack is there.
pub struct StackDeletionStep {
    id: String,
    run: String,
    blue: String,
    /// The stack's ARN or name.
    stack: String,
}

/// One look at the stack, and at blue.
#[derive(Default)]
pub struct StackDeletionObservation {
    /// None where it is deleted.
    stack: Option<StackReading>,
    group: Option<Nodegroup>,
    /// Instances of blue, and its nodes that the API server lists.
    instances: usize,
    nodes: usize,
    /// Why the stack cannot be deleted with nothing lost but blue.
    problems: Vec<String>,
    /// Blue's name in the template.
    logical_id: Option<String>,
    /// The run's own change sets.
    keeping: Option<ChangeSet>,
    restoring: Option<ChangeSet>,
}

/// Blue and its stack before.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StackDeletionBeforeImage {
    /// Blue's ARN, which another group of the same name does not have.
    arn: Option<String>,
    /// The stack's.
    stack: Option<String>,
}

/// Acts on the stack: change sets of its template, and its deletion.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum StackDeletionAct {
    /// Asks for a change set, after which a deletion keeps all but blue; or, to restore, for the template of before.
    CreateChangeSet {
        restore: bool,
        attempt: CallAttempt,
    },
    ExecuteChangeSet {
        restore: bool,
        attempt: CallAttempt,
    },
    /// Deletes a change set that failed, or that another change has overtaken.
    DiscardChangeSet {
        restore: bool,
    },
    DeleteStack {
        attempt: CallAttempt,
    },
}

impl StackDeletionStep {
    /// Deletes `stack`, which is of `blue`, in run `run`.
    pub fn new(id: String, run: String, blue: String, stack: String) -> Self {
        Self {
            id,
            run,
            blue,
            stack,
        }
    }

    /// The name of the run's change set.
    fn change_set_name(&self, restore: bool) -> String {
        let word = if restore { "restore" } else { "keep" };
        let letters = self.run.chars();
        let run: String = letters
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        format!("eksup-{word}-{run}")
    }

    fn words(&self) -> String {
        format!("stack {} of {}", self.short_stack(), self.blue)
    }

    /// The stack's name, where it is given by ARN too.
    fn short_stack(&self) -> &str {
        match self.stack.split_once(":stack/") {
            Some((_, rest)) => rest.split('/').next().unwrap_or(rest),
            None => &self.stack,
        }
    }

    /// The template that a change set is to bring; none where nothing is left to change.
    fn wanted_template(
        &self,
        seen: &StackDeletionObservation,
        restore: bool,
    ) -> Result<Option<TemplateChange>, String> {
        let (Some(stack), Some(template), Some(group)) =
            (&seen.stack, seen.template(), &seen.logical_id)
        else {
            return Ok(None);
        };
        if restore {
            return template.restore();
        }
        match template.goes_alone() == Some(group) {
            true => Ok(None),
            false => {
                let resolved = &stack.stack.resolved_parameters;
                template.keep_all_but(group, &self.run, resolved).map(Some)
            }
        }
    }

    /// Whether blue is as empty, and the template as it has to be, at this moment.
    async fn may_delete(&self, world: &StepWorld) -> Result<bool, StepError> {
        let seen = self.observe_state(world).await?;
        // Whatever holds of a stack that is whole was proved before its first deletion.
        let fit = seen.has_failed() || seen.problems.is_empty();
        Ok(fit && seen.is_empty() && seen.is_prepared())
    }

    fn refuse(&self, why: impl std::fmt::Display) -> Decision<StackDeletionAct> {
        Decision::Refuse(
            StepRefusal::new(format!("{} is not deleted: {why}", self.words())).with_fix(format!(
                "See what AWS says of it (`aws cloudformation describe-stack-events --stack-name {}`) and set right what is in the way; or delete it by hand, keeping all but {}",
                self.short_stack(),
                self.blue
            )),
        )
    }

    /// Waits for CloudFormation; a person is asked after [`STACK_TIMEOUT`].
    fn wait(&self, why: String, past: &StepHistory, now: Timestamp) -> Decision<StackDeletionAct> {
        let waited = past.wait_counts_from().map(|t| now.duration_since(t));
        let waited = waited.and_then(|waited| Duration::try_from(waited).ok());
        match waited.is_some_and(|waited| waited > STACK_TIMEOUT) {
            true => self.refuse(format!(
                "{why}, after {} minutes",
                STACK_TIMEOUT.as_secs() / 60
            )),
            false => Decision::Wait {
                why,
                recheck: EKS_POLL_INTERVAL,
            },
        }
    }
}

impl StackDeletionObservation {
    fn template(&self) -> Option<StackTemplate> {
        read_template(&self.stack.as_ref()?.template).ok()
    }

    /// A deletion of the stack has failed: it cannot be updated any more, but deleted again (CFN-12).
    fn has_failed(&self) -> bool {
        let stack = self.stack.as_ref();
        stack.is_some_and(|s| s.stack.status == "DELETE_FAILED")
    }

    /// A deletion takes blue alone. Blue itself may be out of a stack whose deletion has failed.
    fn is_prepared(&self) -> bool {
        let template = self.template();
        match (
            template.as_ref().and_then(|t| t.goes_alone()),
            &self.logical_id,
        ) {
            (Some(goes), Some(blue)) => goes == blue,
            (Some(_), None) => self.has_failed(),
            (None, _) => false,
        }
    }

    /// Nothing of blue runs, nor is to.
    fn is_empty(&self) -> bool {
        let size = self.group.as_ref().map_or(0, |g| g.scaling.desired);
        size == 0 && self.instances == 0 && self.nodes == 0
    }
}

/// The last act was begun a moment ago: whether it took may not show yet.
fn has_just_acted(past: &StepHistory, now: Timestamp) -> bool {
    let fresh = |t| now.duration_since(t) < STACK_VISIBLE_WITHIN;
    past.watched_from().is_some_and(fresh)
}

/// The last act, read.
fn last_act(past: &StepHistory) -> Option<StackDeletionAct> {
    serde_json::from_value(past.last_act.clone()?).ok()
}

impl Step<StepWorld> for StackDeletionStep {
    type Observation = StackDeletionObservation;
    type BeforeImage = StackDeletionBeforeImage;
    type Act = StackDeletionAct;

    async fn observe_state(&self, world: &StepWorld) -> Result<Self::Observation, StepError> {
        let stack = world.aws.read_stack(&self.stack).await;
        // It may go between two calls.
        let stack = crate::model::absent_is_none(stack)?.flatten();
        let group = world.read_node_group(&self.blue).await?;
        let mut seen = StackDeletionObservation::default();
        if let Some(group) = &group {
            let asgs = world.aws.describe_asgs(&group.asgs).await?;
            seen.instances = asgs.values().map(|a| a.instances.len()).sum();
        }
        let snapshot = world.read_snapshot().await?;
        let nodes = snapshot.nodes.values();
        seen.nodes = nodes
            .filter(|n| n.nodegroup_name() == Some(&self.blue))
            .count();
        seen.group = group;
        if let Some(stack) = stack {
            let (cluster, blue) = (world.cluster.as_str(), self.blue.as_str());
            seen.problems = stack.deletion_problems(cluster, blue);
            let found = stack.find_group(cluster, blue);
            seen.logical_id = found.map(|r| r.logical_id.clone());
            for (restore, set) in [(false, &mut seen.keeping), (true, &mut seen.restoring)] {
                let name = self.change_set_name(restore);
                let read = world.aws.describe_change_set(&stack.stack.id, &name);
                *set = read.await?;
            }
            seen.stack = Some(stack);
        }
        Ok(seen)
    }

    fn decide_next(
        &self,
        seen: &Self::Observation,
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<StackDeletionAct> {
        let Some(StackReading { stack, .. }) = &seen.stack else {
            return match (&seen.group, seen.nodes) {
                // EKS may show for minutes what was (EKS-NG-17); or whoever deleted the stack kept the group.
                (Some(_), _) => self.wait(
                    format!("the stack of {0} is gone; {0} is still shown", self.blue),
                    past,
                    now,
                ),
                (None, 0) => Decision::Done(format!("{} is gone, and so is its stack", self.blue)),
                (None, n) => self.wait(
                    format!(
                        "{} is gone; the API server still lists {n} nodes",
                        self.blue
                    ),
                    past,
                    now,
                ),
            };
        };
        // What CloudFormation is doing, whoever asked for it, is seen through.
        if stack.is_in_progress() {
            return self.wait(format!("{} is {}", self.words(), stack.status), past, now);
        }
        let asked = matches!(last_act(past), Some(StackDeletionAct::DeleteStack { .. }));
        if asked && has_just_acted(past, now) {
            let why = format!("CloudFormation was asked to delete {}", self.words());
            return self.wait(why, past, now);
        }
        // Whoever takes the run up again has set right what was in the way.
        if seen.has_failed() && (asked || !seen.is_prepared() || !seen.is_empty()) {
            return self.refuse(stack.status_text());
        }
        if seen.has_failed() {
            return Decision::Act(StackDeletionAct::DeleteStack {
                attempt: CallAttempt::of_forward(past),
            });
        }
        if !seen.problems.is_empty() {
            return self.refuse(seen.problems.join("; "));
        }
        if !seen.is_empty() {
            let n = seen.instances.max(seen.nodes);
            return self.refuse(format!("{} has nodes again ({n})", self.blue));
        }
        match self.wanted_template(seen, false) {
            Err(why) => self.refuse(why),
            Ok(Some(_)) => self.decide_change_set((seen, false), past, now),
            // A deletion that CloudFormation gives up at once leaves the status of before.
            Ok(None) => match &stack.status_reason {
                Some(reason) if asked => self.refuse(reason),
                _ => Decision::Act(StackDeletionAct::DeleteStack {
                    attempt: CallAttempt::of_forward(past),
                }),
            },
        }
    }

    fn before_image(&self, seen: &Self::Observation) -> StackDeletionBeforeImage {
        StackDeletionBeforeImage {
            arn: seen.group.as_ref().map(|g| g.arn.clone()),
            stack: seen.stack.as_ref().map(|s| s.stack.id.clone()),
        }
    }

    async fn perform_act(
        &self,
        world: &StepWorld,
        act: &StackDeletionAct,
    ) -> Result<(), StepError> {
        match act {
            StackDeletionAct::CreateChangeSet { restore, attempt } => {
                let seen = self.observe_state(world).await?;
                let wanted = self.wanted_template(&seen, *restore);
                let (Some(stack), Ok(Some(change))) = (&seen.stack, wanted) else {
                    // It is otherwise now; the next look says how.
                    return Ok(());
                };
                let name = self.change_set_name(*restore);
                let asked = NewChangeSet {
                    stack: &stack.stack.id,
                    name: &name,
                    template: &change.text,
                    parameters: &stack.stack.parameters,
                    values: &change.values,
                };
                let token = ("CreateChangeSet", &(&name, &change.text));
                let token = world.idempotency_token(&self.id, token, attempt)?;
                Ok(world.aws.create_change_set(asked, &token).await?)
            }
            StackDeletionAct::ExecuteChangeSet { restore, attempt } => {
                let name = self.change_set_name(*restore);
                let token = ("ExecuteChangeSet", &name);
                let token = world.idempotency_token(&self.id, token, attempt)?;
                let execute = world.aws.execute_change_set(&self.stack, &name, &token);
                Ok(execute.await?)
            }
            StackDeletionAct::DiscardChangeSet { restore } => {
                let name = self.change_set_name(*restore);
                Ok(world.aws.delete_change_set(&self.stack, &name).await?)
            }
            StackDeletionAct::DeleteStack { attempt } => {
                if !self.may_delete(world).await? {
                    return Ok(());
                }
                let token = ("DeleteStack", &self.stack);
                let token = world.idempotency_token(&self.id, token, attempt)?;
                Ok(world.aws.delete_stack(&self.stack, &token).await?)
            }
        }
    }

    /// As long as the stack is not being deleted, its template can be as before.
    fn undo_kind(&self) -> UndoKind {
        UndoKind::Restore
    }

    fn decide_undo(
        &self,
        before: &StackDeletionBeforeImage,
        seen: &Self::Observation,
        trail: &RollbackHistory,
        now: Timestamp,
    ) -> Decision<StackDeletionAct> {
        let gone = |how: &str| {
            Decision::Refuse(StepRefusal::new(format!(
                "{} {how}, and {} with it: it cannot be brought back",
                self.words(),
                self.blue
            )))
        };
        // A stack of that name may be another by now.
        let stack = seen.stack.as_ref().map(|s| &s.stack);
        let stack = stack.filter(|s| before.stack.as_ref().is_none_or(|was| *was == s.id));
        let Some(stack) = stack else {
            return gone("is deleted");
        };
        let asked = matches!(
            last_act(&trail.forward),
            Some(StackDeletionAct::DeleteStack { .. })
        );
        if asked && has_just_acted(&trail.forward, now) {
            let why = format!(
                "it is not known yet whether CloudFormation was asked to delete {}",
                self.words()
            );
            return self.wait(why, &trail.rollback, now);
        }
        // Where its deletion failed because of blue, or before blue, blue is as it was.
        let stands = |g: &Nodegroup| {
            !matches!(
                g.status,
                NodegroupStatus::Deleting | NodegroupStatus::DeleteFailed
            )
        };
        if seen.has_failed() && seen.group.as_ref().is_some_and(stands) {
            return Decision::Done(format!(
                "{} is there; {} stays {}",
                self.blue,
                self.words(),
                stack.status_text()
            ));
        }
        if stack.status.starts_with("DELETE_") {
            return gone("is being deleted, or was");
        }
        if stack.is_in_progress() {
            let why = format!("{} is {}", self.words(), stack.status);
            return self.left_as_it_is(self.wait(why, &trail.rollback, now));
        }
        match self.wanted_template(seen, true) {
            Ok(Some(_)) => {
                let next = self.decide_change_set((seen, true), &trail.rollback, now);
                self.left_as_it_is(next)
            }
            // Nothing was carried out, so that only what was prepared is in the way.
            Ok(None) if change_set::is_waiting(seen.keeping.as_ref()) => {
                Decision::Act(StackDeletionAct::DiscardChangeSet { restore: false })
            }
            Ok(None) => Decision::Done(format!("{} is as it was", self.words())),
            Err(why) => self.left_as_it_is(self.refuse(why)),
        }
    }

    fn describe_act(&self, act: &StackDeletionAct) -> String {
        let stack = self.short_stack();
        match act {
            StackDeletionAct::CreateChangeSet { restore: false, .. } => format!(
                "CreateChangeSet {stack}: DeletionPolicy Retain for all but {}",
                self.blue
            ),
            StackDeletionAct::CreateChangeSet { restore: true, .. } => {
                format!("CreateChangeSet {stack}: DeletionPolicies as they were")
            }
            StackDeletionAct::ExecuteChangeSet { restore, .. } => format!(
                "ExecuteChangeSet {} of {stack}",
                self.change_set_name(*restore)
            ),
            StackDeletionAct::DiscardChangeSet { restore } => format!(
                "DeleteChangeSet {} of {stack}",
                self.change_set_name(*restore)
            ),
            StackDeletionAct::DeleteStack { .. } => {
                format!("DeleteStack {stack}, which deletes {} alone", self.blue)
            }
        }
    }
}
