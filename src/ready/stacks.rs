//! CloudFormation stacks that the plan deletes with their groups.

use super::input::ReadinessInput;
use super::{Code, Finding};
use crate::model::group_owner::GroupOwner;
use crate::plan::{DeleteOwned, RetireHow};

/// Judges each stack that is to be deleted: nothing but the group may go with it. It is deleted last of all, so that what
/// speaks against it is better known before the run.
pub fn check_stacks(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    if case.plan.retire.then != RetireHow::Delete {
        return;
    }
    let with_stack = { case.plan.all_groups() }.filter(|g| g.delete_owned == DeleteOwned::Stack);
    for entry in with_stack {
        let Some(group) = case.inventory.find_nodegroup(&entry.blue) else {
            continue;
        };
        let owner = GroupOwner::from_tags(&group.tags);
        let stack = owner.as_ref().and_then(GroupOwner::stack);
        let subject = match stack {
            Some(stack) => format!("CloudFormation stack {stack} of {}", group.name),
            None => format!("{} {}", group.source.group_words(), group.name),
        };
        let read = case.inventory.stacks.get(&group.name);
        let problems = match (stack, read) {
            (None, _) => vec!["no tag says that it belongs to a CloudFormation stack".to_owned()],
            (Some(_), None) => {
                vec!["it could not be read, or there is none of that name".to_owned()]
            }
            (Some(_), Some(read)) => {
                read.deletion_problems(&case.inventory.cluster.name, &group.name)
            }
        };
        if !problems.is_empty() {
            out.push(Finding::new(
                Code::StackHeld,
                subject,
                format!("the plan deletes it with its stack, and {}", problems.join("; ")),
                format!(
                    "set right what is named, or write `deleteOwned: true` for {} and delete the stack by hand, as `eksup handback` says",
                    group.name
                ),
            ));
        }
    }
}
