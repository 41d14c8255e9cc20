//! Where the warm pool of a self-managed group goes from blue, and where it comes to green.

use super::draft::{RouteDraft, StepDraft};
use super::migration::GroupMove;
use super::{StepSpec, estimate};
use crate::model::node_source::NodeSource;
use crate::model::warm_pool::WarmPool;

/// The warm pool that moves with a group; none where it has none. Later hops move what the first one gave green.
fn moved_pool(draft: &RouteDraft<'_>, m: &GroupMove<'_, '_>) -> Option<WarmPool> {
    let origin = m.migration.origin;
    // The pool of a managed node group is EKS's own, and part of the group.
    if origin.source != NodeSource::AutoScalingGroup {
        return None;
    }
    let reading = draft.inventory.asgs.get(&origin.name)?.warm_pool.as_ref()?;
    // One that somebody deletes is not given to green.
    (!reading.deleting).then(|| reading.pool.clone())
}

/// Adds the step that empties and deletes blue's warm pool, where it has one.
pub fn push_remove_warm_pool(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>) {
    let Some(pool) = moved_pool(draft, m) else {
        return;
    };
    draft.add_note_once(format!(
        "{}: its warm pool ({}) is deleted before {} is closed, and {} gets the same one when {} is empty; in between neither has one, and grows by new instances.",
        m.blue_title(),
        pool.describe(),
        m.blue,
        m.green,
        m.blue
    ));
    let spec = StepSpec::RemoveWarmPool {
        blue: m.blue.clone(),
        pool,
    };
    let step_draft = StepDraft::new(
        format!("Warm pool of {}: emptied and deleted", m.blue),
        [format!("warm pool of {}", m.blue)],
        estimate::REMOVE_WARM_POOL,
        spec,
    );
    draft.push_step(
        format!("remove-warm-pool-{}", m.blue),
        step_draft.with_reason("instances that warm may register as nodes and stop again, and pods that leave blue would come to them; at zero nodes the pool would fill"),
    );
}

/// Adds the step that gives green the warm pool that blue had.
pub fn push_add_warm_pool(draft: &mut RouteDraft<'_>, m: &GroupMove<'_, '_>) {
    let Some(pool) = moved_pool(draft, m) else {
        return;
    };
    let title = format!("Warm pool of {}: {}", m.green, pool.describe());
    let spec = StepSpec::AddWarmPool {
        green: m.green.clone(),
        pool,
    };
    let touches = [format!("warm pool of {}", m.green)];
    let step_draft = StepDraft::new(title, touches, estimate::ADD_WARM_POOL, spec);
    draft.push_step(
        format!("add-warm-pool-{}", m.green),
        step_draft.with_reason(
            "no pod looks for a place any more that an instance which warms could take",
        ),
    );
}
