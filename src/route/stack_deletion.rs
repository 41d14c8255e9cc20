//! Blue that goes with its CloudFormation stack.

use super::draft::{RouteDraft, StepDraft};
use super::group_move::GroupMove;
use super::{StepSpec, estimate};
use crate::model::group_owner::GroupOwner;
use crate::plan::{DeleteOwned, RetireHow};

/// The stack that is to be deleted with blue; none where the plan does not say so, or blue's tags name none.
pub(super) fn stack_to_delete(draft: &RouteDraft<'_>, m: &GroupMove<'_, '_>) -> Option<String> {
    let origin = m.migration.origin;
    let wanted = draft.plan.retire.then == RetireHow::Delete
        && m.migration.plan_entry.delete_owned == DeleteOwned::Stack
        // A green that stops over is in no stack.
        && m.blue == origin.name;
    let owner = GroupOwner::from_tags(&origin.tags).filter(|_| wanted)?;
    owner.stack_id().map(str::to_owned)
}

/// Adds the deletion of the stack of a blue that has no nodes any more.
pub(super) fn push_stack_deletion(
    draft: &mut RouteDraft<'_>,
    m: &GroupMove<'_, '_>,
    stack: String,
) {
    let owner = GroupOwner::from_tags(&m.migration.origin.tags);
    let name = owner.and_then(|o| o.stack().map(str::to_owned));
    let name = name.unwrap_or_else(|| stack.clone());
    let spec = StepSpec::DeleteStack {
        blue: m.blue.clone(),
        stack,
    };
    let step_draft = StepDraft::new(
        format!(
            "CloudFormation stack {name} is deleted, and {} with it",
            m.blue
        ),
        [m.blue_words(), format!("CloudFormation stack {name}")],
        estimate::STACK,
        spec,
    )
    .with_reason("all else that it holds is kept, as green uses it")
    .with_no_return(format!(
        "EKS creates node groups only at the control plane's version: {} cannot be created again as it was",
        m.blue
    ));
    draft.groups.remove(&m.blue);
    draft.push_step(format!("delete-stack-{}", m.blue), step_draft);
}
