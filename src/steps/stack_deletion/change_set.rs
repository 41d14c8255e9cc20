//! One change of the stack's template: asked for as a change set, read, and carried out only if it does nothing else.

use jiff::Timestamp;

use super::{
    StackDeletionAct, StackDeletionObservation, StackDeletionStep, has_just_acted, last_act,
};
use crate::engine::{Decision, StepHistory};
use crate::model::stack::ChangeSet;
use crate::steps::attempts::CallAttempt;

/// Whether the change set is there and has not been carried out.
pub(super) fn is_waiting(set: Option<&ChangeSet>) -> bool {
    set.is_some_and(|s| !s.execution_status.starts_with("EXECUTE_"))
}

impl StackDeletionStep {
    /// What brings the template to what it has to be.
    pub(super) fn decide_change_set(
        &self,
        (seen, restore): (&StackDeletionObservation, bool),
        past: &StepHistory,
        now: Timestamp,
    ) -> Decision<StackDeletionAct> {
        let set = match restore {
            true => seen.restoring.as_ref(),
            false => seen.keeping.as_ref(),
        };
        let attempt = match restore {
            true => CallAttempt::of_rollback(past),
            false => CallAttempt::of_forward(past),
        };
        let name = self.change_set_name(restore);
        let wait = |what: &str| self.wait(format!("change set {name} {what}"), past, now);
        let act = last_act(past);
        let Some(set) = set else {
            return match act {
                Some(_) if has_just_acted(past, now) => wait("does not show yet"),
                _ => Decision::Act(StackDeletionAct::CreateChangeSet { restore, attempt }),
            };
        };
        // What an earlier attempt left is made again, because a person has been at it since.
        let fail = |why: String| match act {
            Some(_) => self.refuse(why),
            None => Decision::Act(StackDeletionAct::DiscardChangeSet { restore }),
        };
        // Why a change set could not be carried out the stack says, and not the set.
        let of_stack = seen.stack.as_ref().map(|s| s.stack.status_text());
        let reason = set.status_reason.clone().or(of_stack).unwrap_or_default();
        match (set.status.as_str(), set.execution_status.as_str()) {
            ("FAILED", _) => fail(format!(
                "CloudFormation cannot make change set {name}: {reason}"
            )),
            ("CREATE_COMPLETE", "AVAILABLE") => {
                let harmful = set.harmful_changes();
                if !harmful.is_empty() {
                    return fail(format!(
                        "change set {name}, which should change policies alone, would also {}",
                        harmful.join(", ")
                    ));
                }
                // A second request while the first is under way would be refused.
                if matches!(act, Some(StackDeletionAct::ExecuteChangeSet { .. }))
                    && has_just_acted(past, now)
                {
                    return wait("was asked to be carried out");
                }
                Decision::Act(StackDeletionAct::ExecuteChangeSet { restore, attempt })
            }
            ("CREATE_COMPLETE", "OBSOLETE") => {
                Decision::Act(StackDeletionAct::DiscardChangeSet { restore })
            }
            ("CREATE_COMPLETE", "EXECUTE_FAILED") => fail(format!(
                "change set {name} could not be carried out: {reason}"
            )),
            // In the history of a stack the name of what was carried out is free.
            ("CREATE_COMPLETE", "EXECUTE_COMPLETE") if !has_just_acted(past, now) => match act {
                Some(_) => self.refuse(format!(
                    "change set {name} was carried out, and the template was changed again since"
                )),
                None => Decision::Act(StackDeletionAct::CreateChangeSet { restore, attempt }),
            },
            (status, execution) => wait(&format!("is {status}, {execution}")),
        }
    }

    /// In a rollback a template that cannot be restored holds nothing up: a policy changes nothing while nobody deletes.
    pub(super) fn left_as_it_is(
        &self,
        next: Decision<StackDeletionAct>,
    ) -> Decision<StackDeletionAct> {
        match next {
            Decision::Refuse(refusal) => Decision::Done(format!(
                "{} keeps DeletionPolicy Retain and what else eksup changed in its template, where the metadata says what it was ({})",
                self.words(),
                refusal.why
            )),
            other => other,
        }
    }
}
