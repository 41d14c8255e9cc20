//! Steps from a route's plain data.

use std::time::Duration;

use crate::engine::{DynStep, PlannedStep, RollbackPart};
use crate::model::consent::ConsentScope;
use crate::plan::{DrainOrder, OnDeadline, SingleReplicas};
use crate::route::{DrainSpec, Route, RouteStep, StepSpec};
use crate::steps::StepWorld;
use crate::steps::addon::AddonStep;
use crate::steps::bake::BakeStep;
use crate::steps::blue_protection::BlueProtectionStep;
use crate::steps::configuration_template::{ConfigurationTemplateSpec, ConfigurationTemplateStep};
use crate::steps::control_plane::ControlPlaneStep;
use crate::steps::cordon_blue::CordonBlueStep;
use crate::steps::drain::DrainStep;
use crate::steps::fargate::RestartFargateStep;
use crate::steps::green::{CreateGreenStep, GreenGroupSpec};
use crate::steps::green_protection::GreenProtectionStep;
use crate::steps::launch_template::{LaunchTemplateStep, TemplateSource};
use crate::steps::node_pools::{HoldPoolStep, ReplacePoolStep, ReplaceTerms, ReplacedNodes};
use crate::steps::retire::RetireStep;
use crate::steps::stack_deletion::StackDeletionStep;
use crate::steps::traffic::{AddToRulesStep, AttachStep, DetachStep, ShiftStep};
use crate::steps::warm_pool::{AddWarmPoolStep, RemoveWarmPoolStep};

/// Builds all steps of `route`, as [`build_step`] does each.
pub fn build_steps(route: &Route, run: &str, roll_back: bool) -> Vec<PlannedStep<StepWorld>> {
    let rollback_order: Vec<&str> = route
        .rollback_order()
        .iter()
        .map(|s| s.id.as_str())
        .collect();
    let planned = |step: &RouteStep| PlannedStep {
        id: step.id.clone(),
        title: step.title.clone(),
        step: build_step(step, route, run, roll_back),
        rollback_place: rollback_order
            .iter()
            .position(|id| *id == step.id)
            .unwrap_or_default(),
        rollback_part: rollback_part_of(&step.spec),
    };
    route.steps.iter().map(planned).collect()
}

/// How a step takes part in a rollback: what brings blue back goes together, as where green serves nothing the weights
/// wait for blue's pods; and a green whose dead nodes hold on to something may be deleted before the weights are back.
fn rollback_part_of(spec: &StepSpec) -> RollbackPart {
    match spec {
        StepSpec::DetachTargets { .. }
        | StepSpec::Shift { .. }
        | StepSpec::CordonBlue { .. }
        | StepSpec::Drain { .. } => RollbackPart::Together,
        StepSpec::CreateGreen { .. } => RollbackPart::MayGoEarly,
        StepSpec::Addon { .. }
        | StepSpec::ControlPlane { .. }
        | StepSpec::Bake { .. }
        | StepSpec::LaunchTemplate { .. }
        | StepSpec::ConfigurationTemplate { .. }
        | StepSpec::HoldGreen { .. }
        | StepSpec::HoldBlue { .. }
        | StepSpec::RemoveWarmPool { .. }
        | StepSpec::AddWarmPool { .. }
        | StepSpec::AttachTargets { .. }
        | StepSpec::AddToRules { .. }
        | StepSpec::Soak { .. }
        | StepSpec::Retire { .. }
        | StepSpec::DeleteStack { .. }
        | StepSpec::ReleaseGreen { .. }
        | StepSpec::HoldPool { .. }
        | StepSpec::DriftPool { .. }
        | StepSpec::ReleasePool { .. }
        | StepSpec::RestartFargate { .. }
        | StepSpec::WaitAutoMode { .. } => RollbackPart::Alone,
    }
}

/// Builds one step of `route` in run `run`. `roll_back` lets an undo take the control plane and its add-ons back too.
pub fn build_step(
    step: &RouteStep,
    route: &Route,
    run: &str,
    roll_back: bool,
) -> Box<dyn DynStep<StepWorld>> {
    // The route's data are all that a step is built from, so that a resumed run does what was journaled.
    let id = step.id.clone();
    let run = run.to_owned();
    match step.spec.clone() {
        StepSpec::Addon {
            from,
            change,
            timeout,
        } => Box::new(AddonStep::new(id, from, change, timeout, roll_back)),
        StepSpec::ControlPlane { from, to, timeout } => {
            Box::new(ControlPlaneStep::new(id, from, to, timeout, roll_back))
        }
        StepSpec::Bake { what, time } => Box::new(BakeStep::new(what, time)),
        StepSpec::LaunchTemplate {
            template,
            source_version,
            image,
        } => Box::new(LaunchTemplateStep::new(id, template, source_version, image)),
        StepSpec::ConfigurationTemplate {
            green,
            configuration,
            template,
            image,
        } => {
            let spec = ConfigurationTemplateSpec {
                green,
                configuration,
                template,
                image,
            };
            Box::new(ConfigurationTemplateStep::new(id, run, spec))
        }
        // The run's id becomes a tag, by which a later process knows green as its own.
        StepSpec::CreateGreen {
            blue,
            group,
            kubelet,
            zones,
            copy_asg_tags,
            template_from,
            lasting_taints,
            surge,
            class_image,
            timeout,
        } => {
            let group_spec = GreenGroupSpec {
                source: route.source_of(&blue),
                blue,
                group: *group,
                kubelet,
                zones,
                copy_asg_tags,
                // The version's number is not known yet: green finds it by how it was made.
                template_from: template_from
                    .and_then(|t| find_template_source(route, (&id, &run), &t)),
                lasting_taints,
                surge,
                class_image,
                timeout,
            };
            // A green that could not be created is emptied before it is deleted, under the plan's own terms for pods
            // and budgets.
            let drain = find_drain_spec(route, &group_spec.group.name);
            Box::new(CreateGreenStep::new(id, run, group_spec, &drain))
        }
        StepSpec::HoldGreen { green } => Box::new(GreenProtectionStep::new_protecting(green, run)),
        StepSpec::ReleaseGreen { green } => {
            Box::new(GreenProtectionStep::new_releasing(green, run))
        }
        StepSpec::HoldBlue { blue, .. } => {
            let source = route.source_of(&blue);
            Box::new(BlueProtectionStep::new(id, run, (blue, source)))
        }
        StepSpec::CordonBlue { blue, taint } => {
            let source = route.source_of(&blue);
            Box::new(CordonBlueStep::new(id, run, (blue, source), taint))
        }
        StepSpec::RemoveWarmPool {
            blue,
            pool,
            removed_before,
        } => Box::new(RemoveWarmPoolStep::new(blue, pool, removed_before)),
        StepSpec::AddWarmPool { green, pool } => Box::new(AddWarmPoolStep::new(green, pool)),
        StepSpec::AttachTargets {
            green,
            target_group,
        } => Box::new(AttachStep::new(green, target_group)),
        StepSpec::DetachTargets {
            blue,
            target_group,
            idle_in,
        } => Box::new(DetachStep::new(blue, target_group, idle_in)),
        // Rules have green at weight 0 before any traffic is shifted.
        StepSpec::AddToRules { green, shift } => Box::new(AddToRulesStep::new(green, shift)),
        StepSpec::Shift { green: _, shift } => Box::new(ShiftStep::new(id, shift)),
        StepSpec::Drain { blue, green, drain } => Box::new(DrainStep::new(id, blue, green, drain)),
        StepSpec::HoldPool { pool, all_reasons } => {
            // The other NodePools come after it, and need not wait for the same thing again.
            let mut back = route.rollback_order().into_iter();
            let first = back.find(|s| s.spec.held_pool().is_some());
            let follows = roll_back && first.is_some_and(|first| first.id == id);
            Box::new(HoldPoolStep::new_holding(pool, run, all_reasons, follows))
        }
        StepSpec::ReleasePool { pool } => Box::new(HoldPoolStep::new_releasing(pool, run)),
        StepSpec::DriftPool {
            pool,
            kubelet,
            budget,
            bake,
            timeout,
        } => {
            let terms = ReplaceTerms {
                kubelet,
                budget,
                bake,
                timeout,
            };
            Box::new(ReplacePoolStep::new(run, ReplacedNodes::Pool(pool), terms))
        }
        StepSpec::WaitAutoMode { kubelet, timeout } => {
            let terms = ReplaceTerms {
                kubelet,
                budget: None,
                bake: Duration::ZERO,
                timeout,
            };
            Box::new(ReplacePoolStep::new(run, ReplacedNodes::AutoMode, terms))
        }
        StepSpec::RestartFargate { kubelet, drain } => {
            Box::new(RestartFargateStep::new(kubelet, drain))
        }
        // A soak watches green only where it exists by then.
        StepSpec::Soak { blue, time } => {
            let green =
                green_for(route, &blue).and_then(|green| created_before(route, step, green));
            let source = route.source_of(&blue);
            Box::new(BakeStep::new_soak((blue, source), green, time))
        }
        StepSpec::DeleteStack { blue, stack } => {
            Box::new(StackDeletionStep::new(id, run, blue, stack))
        }
        StepSpec::Retire {
            blue,
            green,
            delete,
            target_groups,
            rules,
        } => {
            // With `recreate` blue retires first, and there is no green yet.
            let green = created_before(route, step, green);
            let source = route.source_of(&blue);
            let step = RetireStep::new(id, (blue, source), green, delete, target_groups, rules);
            Box::new(step)
        }
    }
}

/// `green`, where `route` has made it before `step`: with the strategy `recreate` blue goes first.
fn created_before(route: &Route, step: &RouteStep, green: String) -> Option<String> {
    let before = route.steps.iter().take_while(|s| s.id != step.id);
    let mut groups = before.filter_map(|s| s.spec.created_group());
    groups.any(|group| group.name == green).then_some(green)
}

/// The group that `blue` is to give way to.
fn green_for(route: &Route, blue: &str) -> Option<String> {
    route.steps.iter().find_map(|step| {
        let StepSpec::Retire {
            blue: of, green, ..
        } = &step.spec
        else {
            return None;
        };
        (of == blue).then(|| green.clone())
    })
}

/// How the template version for the green of step `id` in run `run` is made: by the last step before it that makes one of
/// `template`, or that makes it.
fn find_template_source(
    route: &Route,
    (id, run): (&str, &str),
    template: &str,
) -> Option<TemplateSource> {
    let before = route.steps.iter().take_while(|s| s.id != id);
    let made = before.filter_map(|s| {
        if let StepSpec::LaunchTemplate {
            template: of,
            source_version,
            image,
        } = &s.spec
        {
            return (of == template).then(|| TemplateSource::Version {
                template: of.clone(),
                source_version: *source_version,
                image: image.clone(),
            });
        }
        let StepSpec::ConfigurationTemplate {
            green,
            configuration,
            template: name,
            image,
        } = &s.spec
        else {
            return None;
        };
        (name == template).then(|| TemplateSource::Configuration {
            spec: ConfigurationTemplateSpec {
                green: green.clone(),
                configuration: configuration.clone(),
                template: name.clone(),
                image: image.clone(),
            },
            run: run.to_owned(),
        })
    });
    made.last()
}

/// How the pods of `green` came, and so how they go back.
fn find_drain_spec(route: &Route, green: &str) -> DrainSpec {
    let of_green = route.steps.iter().find_map(|step| {
        let StepSpec::Drain {
            green: to, drain, ..
        } = &step.spec
        else {
            return None;
        };
        (to == green).then(|| drain.clone())
    });
    // Every green has a drain that fills it. Without one nothing that could be lost is touched.
    of_green.unwrap_or_else(|| DrainSpec {
        order: DrainOrder::Name,
        parallel: 1,
        pod_deadline: std::time::Duration::from_secs(15 * 60),
        node_deadline: std::time::Duration::from_secs(60 * 60),
        on_deadline: OnDeadline::Stop,
        bare_pods: ConsentScope::NONE,
        empty_dir: ConsentScope::NONE,
        host_path: ConsentScope::NONE,
        wait_for_jobs: true,
        evict_jobs: ConsentScope::NONE,
        single_replicas: SingleReplicas::Block,
        wait_for_operators: false,
        budgets: Default::default(),
        skip_dead_kubelets: false,
        bake: std::time::Duration::ZERO,
        canary_bake: None,
        surge: None,
        leave_target_groups: Vec::new(),
        served_by_pods: Vec::new(),
        deregister_from: Vec::new(),
        downtime: false,
        nodes_follow: false,
    })
}
