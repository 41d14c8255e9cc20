//! A run that is begun again after a rollback, from every step of every plan; sampled without `EKSUP_FULL_SWEEP`.

use eksup::chaos::oracle::{EndState, find_leftover_marks};
use eksup::engine::RunOutcome;
use eksup::run::RunErrorKind;

use super::back::{SEED, Walk, sampled, swept, virtually, walk};
use super::world::not_whole;
use crate::support::process_rig::{Rig, RunCommand};

/// The end of a run from a copy of the walk's world at its beginning, or after stop `i` and a rollback.
fn run_again(walk: &Walk, i: Option<usize>, control_plane: bool) -> Result<EndState, String> {
    virtually(async {
        let world = i.map_or(&walk.start, |i| &walk.stops[i].world);
        let rig = Rig::again(world.lock().unwrap().clone(), &walk.plan, SEED);
        if i.is_some() {
            let mut back = rig.process(RunCommand::Rollback { control_plane }).await;
            // Before the first hop, or with newer nodes, EKS would not take the control plane back: the rest goes without it.
            if control_plane && matches!(&back, Err(e) if e.kind == RunErrorKind::NotReady) {
                back = rig.rollback().await;
            }
            let Ok(RunOutcome::RolledBack { .. }) = back else {
                return Err(format!("{back:?}\n{}", rig.log()));
            };
        }
        let ended = rig.apply().await;
        if ended != RunOutcome::Done {
            return Err(format!("{ended:?}\n{}", rig.log()));
        }
        let after = rig.read().await;
        let mut left = find_leftover_marks(&after);
        left.extend(not_whole(&after));
        match left.is_empty() {
            true => Ok(EndState::from_inventory(&after)),
            false => Err(left.join(", ")),
        }
    })
}

fn sweep(name: &'static str, every: usize) {
    let walk = walk(name);
    let once = run_again(walk, None, false).unwrap();
    let mut wrong = Vec::new();
    // Once a blue is gone the plan names a group that is not there, and another plan is needed.
    let stops = walk.stops.iter().enumerate();
    let stops = stops.take_while(|(i, _)| !walk.origin(*i).1);
    for (i, stop) in stops.filter(|(i, _)| sampled(*i + 1, every)) {
        match run_again(walk, Some(i), i % 2 == 1) {
            Ok(end) => {
                let differs = end.differences_from(&once).into_iter();
                wrong.extend(differs.map(|d| format!("after {}: {d}", stop.step)));
            }
            Err(why) => wrong.push(format!("after {}: {why}", stop.step)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

swept!(sweep:
    expense_dev_goes_up_after_a_rollback_from_every_step: "expense-dev", 12,
    multi_hop_goes_up_after_a_rollback_from_every_step: "multi-hop", 30,
    custom_ami_goes_up_after_a_rollback_from_every_step: "custom-ami", 12,
    controller_ingress_goes_up_after_a_rollback_from_every_step: "controller-ingress", 12,
    local_policy_goes_up_after_a_rollback_from_every_step: "local-policy", 12,
    canary_goes_up_after_a_rollback_from_every_step: "canary", 12,
    self_managed_goes_up_after_a_rollback_from_every_step: "self-managed", 20,
    karpenter_blue_green_goes_up_after_a_rollback_from_every_step: "karpenter-blue-green", 20,
    karpenter_drift_goes_up_after_a_rollback_from_every_step: "karpenter-drift", 12,
    fargate_goes_up_after_a_rollback_from_every_step: "fargate", 9,
    auto_mode_goes_up_after_a_rollback_from_every_step: "auto-mode", 2,
    windows_goes_up_after_a_rollback_from_every_step: "windows", 15,
    eksctl_goes_up_after_a_rollback_from_every_step: "eksctl", 25,
    mixed_goes_up_after_a_rollback_from_every_step: "mixed", 70,
);
