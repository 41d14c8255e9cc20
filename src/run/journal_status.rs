//! Where control plane, traffic and nodes stand, told from the journal: what every end of a run says.

use std::collections::BTreeMap;

use crate::journal::{RunPhase, RunState, StepStatus};
use crate::model::elb;
use crate::report::RunView;
use crate::report::view::StepView;
use crate::route::{Route, StepSpec};

/// How far a step has changed the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepPosition {
    Before,
    Midway,
    After,
}

fn step_position(state: &RunState, id: &str) -> StepPosition {
    let Some(step) = state.find_step(id) else {
        return StepPosition::Before;
    };
    match step.status {
        StepStatus::Pending | StepStatus::Started | StepStatus::Undone => StepPosition::Before,
        StepStatus::Failed if step.acts == 0 => StepPosition::Before,
        StepStatus::Begun | StepStatus::Failed | StepStatus::Undoing | StepStatus::UndoFailed => {
            StepPosition::Midway
        }
        StepStatus::Done | StepStatus::Skipped => StepPosition::After,
    }
}

/// A few lines: control plane, traffic, each node group.
pub fn status_lines(state: &RunState, route: &Route, view: Option<&RunView>) -> Vec<String> {
    // Told from the journal alone, because this is printed when the cluster may not answer. Later steps overwrite
    // earlier ones.
    let mut version = format!("control plane: {}", route.from);
    let mut traffic = BTreeMap::new();
    let mut groups: BTreeMap<&str, String> = BTreeMap::new();
    for step in &route.steps {
        let at = step_position(state, &step.id);
        let known = state.find_step(&step.id);
        let is_undoing =
            known.is_some_and(|s| matches!(s.status, StepStatus::Undoing | StepStatus::UndoFailed));
        let seen = view.and_then(|v| v.find_step(&step.id)).map(|(_, s)| s);
        match &step.spec {
            StepSpec::ControlPlane { from, to, .. } => match at {
                StepPosition::Before => {}
                StepPosition::Midway if is_undoing => {
                    version = format!("control plane: being rolled back from {to} to {from}");
                }
                StepPosition::Midway => {
                    version = format!("control plane: being upgraded from {from} to {to}");
                }
                StepPosition::After => version = format!("control plane: {to}"),
            },
            // By rule, because a later shift of the same rules replaces what is said of them.
            StepSpec::Shift { shift, .. } => {
                let text = match at {
                    StepPosition::Before => {
                        format!("all on blue ({})", elb::short_name(&shift.blue))
                    }
                    StepPosition::Midway => shift_text(seen),
                    StepPosition::After => {
                        format!("all on green ({})", elb::short_name(&shift.green))
                    }
                };
                traffic.insert(shift.rules.join(","), text);
            }
            // A rollback deletes green again, and a reader must not take that for a green that is still to come.
            StepSpec::CreateGreen { group, .. } => {
                let back = known.is_some_and(|s| s.status == StepStatus::Undone);
                let text = match at {
                    StepPosition::Before if back => "gone again",
                    StepPosition::Before => "not created yet",
                    StepPosition::Midway if is_undoing => "being deleted",
                    StepPosition::Midway => "being built",
                    StepPosition::After => "in service",
                };
                groups.insert(&group.name, text.to_owned());
            }
            // Blue serves until it is drained: closed says only that nothing new comes.
            StepSpec::CordonBlue { blue, .. } => {
                let text = match at {
                    StepPosition::Before => "in service",
                    StepPosition::Midway | StepPosition::After => "in service, takes no new pods",
                };
                groups.insert(blue, text.to_owned());
            }
            StepSpec::Drain { blue, .. } => match at {
                StepPosition::Before => {}
                StepPosition::Midway => drop(groups.insert(blue, drain_text(seen))),
                StepPosition::After => drop(groups.insert(blue, "empty".to_owned())),
            },
            StepSpec::Retire { blue, delete, .. } => {
                let end = if *delete { "deleted" } else { "at zero" };
                match at {
                    StepPosition::Before => {}
                    StepPosition::Midway => drop(groups.insert(blue, format!("being {end}"))),
                    StepPosition::After => drop(groups.insert(blue, end.to_owned())),
                }
            }
            StepSpec::DeleteStack { blue, .. } => match at {
                StepPosition::Before => {}
                StepPosition::Midway => {
                    groups.insert(blue, "at zero, its stack is being deleted".to_owned());
                }
                StepPosition::After => drop(groups.insert(blue, "deleted".to_owned())),
            },
            // No line: these change neither the control plane nor a rule's weights nor the state of a group.
            StepSpec::Addon { .. }
            | StepSpec::Bake { .. }
            | StepSpec::LaunchTemplate { .. }
            | StepSpec::ConfigurationTemplate { .. }
            | StepSpec::HoldGreen { .. }
            | StepSpec::HoldBlue { .. }
            | StepSpec::RemoveWarmPool { .. }
            | StepSpec::AddWarmPool { .. }
            | StepSpec::AttachTargets { .. }
            | StepSpec::AddToRules { .. }
            | StepSpec::DetachTargets { .. }
            | StepSpec::Soak { .. }
            | StepSpec::ReleaseGreen { .. }
            | StepSpec::HoldPool { .. }
            | StepSpec::DriftPool { .. }
            | StepSpec::ReleasePool { .. }
            | StepSpec::RestartFargate { .. }
            | StepSpec::WaitAutoMode { .. } => {}
        }
    }
    // Control plane first, then traffic, then groups: in the order in which somebody who is woken asks.
    let mut lines = vec![version];
    // What a rollback leaves is said too, or its end would read as if all were as before.
    if state.phase != RunPhase::Forward && !state.keep.is_empty() {
        let kept = state
            .steps
            .iter()
            .filter(|s| s.acts > 0 && state.keep.contains(&s.id));
        let kept: Vec<&str> = kept.map(|s| s.id.as_str()).collect();
        if !kept.is_empty() {
            lines.push(format!("not rolled back: {}", kept.join(", ")));
        }
    }
    if traffic.is_empty() {
        lines.push("traffic: no rule is shifted by this run; it follows the pods".to_owned());
    }
    lines.extend(traffic.into_values().map(|text| format!("traffic: {text}")));
    lines.extend(
        groups
            .into_iter()
            .map(|(name, text)| format!("{} {name}: {text}", route.source_of(name).group_words())),
    );
    lines
}

fn shift_text(step: Option<&StepView>) -> String {
    let count = step.map(|s| &s.count);
    let share = count.filter(|c| c.unit.as_deref() == Some("percent"));
    match share.and_then(|c| c.done) {
        Some(percent) => format!("split, {percent}% on green"),
        None => match step.and_then(|s| s.last_act.as_ref()) {
            Some(what) => format!("split between blue and green (last: {what})"),
            None => "split between blue and green; `eksup status` reads the weights".to_owned(),
        },
    }
}

fn drain_text(step: Option<&StepView>) -> String {
    let count = step
        .map(|s| &s.count)
        .and_then(|c| c.done.zip(c.total).zip(c.unit.as_deref()));
    match count {
        Some(((done, total), unit)) => format!("being emptied, {done} of {total} {unit}"),
        None => "being emptied".to_owned(),
    }
}
