//! A cluster autoscaler beside the upgrade, and what Auto Scaling groups have that EKS does not know of.

use super::Finding;
use super::codes::Code;
use super::input::{BlueGreenPair, ReadinessInput, name_some};
use crate::model::asg::{Asg, AsgTag, CARRIED_SUSPENSIONS, EKS_HOOKS, is_suspended_by_run};
use crate::model::kube::Workload;
use crate::model::{Minor, marks};

/// The tag by which EKS names the node group of an Auto Scaling group.
const NODEGROUP_TAG: &str = "eks:nodegroup-name";

/// Judges autoscalers and Auto Scaling groups.
pub fn check_autoscalers(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    for workload in &case.inventory.workloads {
        if workload.kind == "Deployment"
            && autoscaler_image(workload).is_some()
            && workload.desired > 0
        {
            check_version(case, workload, out);
            check_discovery(case, workload, out);
        }
    }
    for change in &case.changes {
        for asg in case.inventory.asgs_of(&change.blue.name) {
            report_suspended(change, asg, out);
            report_extras(case, change, asg, out);
        }
    }
}

/// The image of a cluster autoscaler.
fn autoscaler_image(workload: &Workload) -> Option<&str> {
    let mut images = workload.images.iter();
    images.find_map(|i| {
        let name = i.rsplit('/').next()?;
        name.starts_with("cluster-autoscaler").then_some(i.as_str())
    })
}

/// An autoscaler simulates the scheduler of its own minor.
fn check_version(case: &ReadinessInput<'_>, workload: &Workload, out: &mut Vec<Finding>) {
    let image = autoscaler_image(workload).unwrap_or_default();
    // The registry's port has a colon too, and a digest may follow the tag.
    let tag = image.rsplit('/').next().and_then(|n| n.split_once(':'));
    let minor = tag.and_then(|(_, tag)| Minor::from_reported(tag.split('@').next()?).ok());
    let to = case.plan.to;
    let detail = match minor {
        Some(minor) if minor == to => return,
        Some(minor) => format!("its version is {minor}, and the cluster will be at {to}"),
        None => format!("its version cannot be read from {image}, and the cluster will be at {to}"),
    };
    out.push(Finding::new(
        Code::AutoscalerVersion,
        format!("Deployment {}", workload.key),
        detail,
        format!("update it to an image for {to} after the upgrade: each of its versions is tested with its own minor only"),
    ));
}

/// Whether it manages green once it manages blue.
fn check_discovery(case: &ReadinessInput<'_>, workload: &Workload, out: &mut Vec<Finding>) {
    let subject = format!("Deployment {}", workload.key);
    let values = |flag: &str| {
        let flags = workload.autoscaler_flags.iter();
        let found = flags.filter_map(|f| f.split_once('='));
        let of_flag = found.filter(|(name, _)| *name == flag);
        of_flag.map(|(_, v)| v.to_owned()).collect::<Vec<_>>()
    };
    // The two ways in which an autoscaler is told its groups.
    let [by_name, by_tag] = [marks::AUTOSCALER_FLAGS[0], marks::AUTOSCALER_FLAGS[1]].map(values);
    if by_name.is_empty() && by_tag.is_empty() {
        out.push(Finding::new(
            Code::AutoscalerUnread,
            subject,
            "none of its flags says which node groups it manages, so it is unknown whether it will manage green",
            "make sure that it finds node groups by tags that green's Auto Scaling group will have too: those that EKS \
             sets, and blue's own",
        ));
        return;
    }
    for change in &case.changes {
        let (blue, green) = (&change.blue.name, &change.green.name);
        for asg in case.inventory.asgs_of(blue) {
            // `--nodes=min:max:name` never covers green, whose Auto Scaling group has another name.
            let named = by_name
                .iter()
                .any(|v| v.splitn(3, ':').nth(2) == Some(&asg.name));
            // Green gets blue's tags; EKS names each group's own.
            let mut tags = asg.tags.clone();
            for tag in tags.iter_mut().filter(|t| t.key == NODEGROUP_TAG) {
                tag.value.clone_from(green);
            }
            // Discovery that finds blue and not green, and discovery that finds green.
            let mut discovered = by_tag.iter().filter_map(|v| v.strip_prefix("asg:tag="));
            let lost: Vec<&str> = discovered
                .clone()
                .filter(|wanted| {
                    has_wanted_tags(wanted, &asg.tags) && !has_wanted_tags(wanted, &tags)
                })
                .collect();
            let found = discovered.any(|wanted| has_wanted_tags(wanted, &tags));
            // It does not manage blue, so that green loses nothing.
            let why = if named {
                format!(
                    "`--nodes` names {}, the Auto Scaling group of {blue}",
                    asg.name
                )
            } else if !lost.is_empty() {
                format!(
                    "it finds {blue} by tags that {green} will not have ({})",
                    lost.join(" and ")
                )
            } else {
                continue;
            };
            if found {
                continue;
            }
            out.push(Finding::new(
                Code::AutoscalerMissesGreen,
                &subject,
                format!("{why}, so it will not scale {green} during the upgrade or after it"),
                "let it find node groups by the tags that EKS sets on every group: \
                 `--node-group-auto-discovery=asg:tag=k8s.io/cluster-autoscaler/enabled,k8s.io/cluster-autoscaler/CLUSTER`",
            ));
        }
    }
}

/// Whether a group with these tags has all that are `wanted`, as `key,key=value`.
fn has_wanted_tags(wanted: &str, tags: &[AsgTag]) -> bool {
    wanted.split(',').all(|one| {
        let (key, value) = one
            .split_once('=')
            .map_or((one, None), |(k, v)| (k, Some(v)));
        let has = |t: &AsgTag| t.key == key && value.is_none_or(|v| t.value == v);
        tags.iter().any(has)
    })
}

/// Processes that somebody suspended.
fn report_suspended(change: &BlueGreenPair<'_>, asg: &Asg, out: &mut Vec<Finding>) {
    // What an earlier run suspended is no news to the user.
    let theirs = asg.suspended.iter();
    let theirs = theirs
        .filter(|p| !is_suspended_by_run(&asg.tags, p))
        .cloned();
    // Only those without which green can still be created, filled and emptied are carried over.
    let (carried, left): (Vec<String>, Vec<String>) =
        theirs.partition(|p| CARRIED_SUSPENSIONS.contains(&p.as_str()));
    let green = &change.green.name;
    let mut parts = Vec::new();
    if !carried.is_empty() {
        parts.push(format!(
            "eksup suspends {} for {green} too",
            carried.join(", ")
        ));
    }
    if !left.is_empty() {
        parts.push(format!(
            "eksup does not suspend {} for {green}, because green cannot be created, filled or emptied without it",
            left.join(", ")
        ));
    }
    if parts.is_empty() {
        return;
    }
    out.push(Finding::new(
        Code::ProcessSuspended,
        format!("Auto Scaling group {} of {}", asg.name, change.blue.name),
        parts.join("; "),
        "after the upgrade, suspend for green what is still to be suspended; or resume the processes before the upgrade, \
         if they need not be suspended any more",
    ));
}

/// What a new group is made without.
fn report_extras(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    asg: &Asg,
    out: &mut Vec<Finding>,
) {
    let mut parts = Vec::new();
    // What acts on the group or is told of it is of no new group, and acts on blue while it is emptied.
    if let Some(automation) = case.inventory.group_automation.get(&asg.name) {
        for (what, names) in [
            ("scaling policy", &automation.policies),
            ("scheduled action", &automation.schedules),
            ("notifications to", &automation.topics),
        ] {
            parts.extend(names.iter().map(|name| format!("{what} {name}")));
        }
    }
    let mut ways = Vec::new();
    if !parts.is_empty() {
        ways.push("a policy or a scheduled action may change blue's sizes while it is emptied: suspend AlarmNotification or ScheduledActions for blue meanwhile, which green gets too: resume it there");
    }
    // A clone of a self-managed group has the rest.
    if change.blue.source.is_managed() {
        let settings = list_unmanaged_settings(case, change, asg);
        if !settings.is_empty() {
            ways.push("a lifecycle hook is set with `aws autoscaling put-lifecycle-hook`; protected instances also stay when the group is scaled to zero (`retire.then: keep-at-zero`)");
        }
        parts.extend(settings);
    }
    if parts.is_empty() {
        return;
    }
    let fix = format!(
        "if green needs it too, set it up after the upgrade; {}",
        ways.join("; ")
    );
    out.push(Finding::new(
        Code::GroupExtras,
        format!("Auto Scaling group {} of {}", asg.name, change.blue.name),
        format!(
            "it has {}, which {} does not get",
            parts.join(", "),
            change.green.name
        ),
        fix,
    ));
}

/// Settings of a managed group's Auto Scaling group that EKS does not know.
fn list_unmanaged_settings(
    case: &ReadinessInput<'_>,
    change: &BlueGreenPair<'_>,
    asg: &Asg,
) -> Vec<String> {
    let mut parts = Vec::new();
    // A warm pool that EKS made is cloned with the node group.
    if asg.warm_pool.is_some() && change.green.warm_pool_config.is_none() {
        parts.push("a warm pool that is not part of the node group".to_owned());
    }
    if asg.protects_new {
        parts.push("scale-in protection of new instances".to_owned());
    }
    // Single instances may be protected although new ones are not.
    let protected = asg.instances.iter().filter(|i| i.protected);
    let protected: Vec<String> = protected.map(|i| i.id.clone()).collect();
    if !protected.is_empty() {
        parts.push(format!("scale-in protection of {}", name_some(&protected)));
    }
    // EKS gives every group its own two hooks, green's too.
    let hooks = case.inventory.lifecycle_hooks.get(&asg.name);
    let hooks = hooks.into_iter().flatten();
    for hook in hooks.filter(|h| !EKS_HOOKS.contains(&h.name.as_str())) {
        let when = hook.transition.rsplit('_').next().unwrap_or_default();
        let tells = hook.notifies.as_ref();
        let tells = tells.map_or_else(String::new, |arn| format!(", notifies {arn}"));
        let hook = format!(
            "lifecycle hook {} ({}, {}{tells})",
            hook.name,
            when.to_ascii_lowercase(),
            hook.default_result
        );
        parts.push(hook);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::asg::WarmPoolReading;
    use crate::model::asg::{GroupAutomation, LifecycleHook};
    use crate::model::warm_pool::WarmPool;
    use crate::plan::Plan;
    use crate::route::fixture;

    /// The findings of codes from N050 on, with an autoscaler of these flags and this image.
    fn found(image: &str, flags: &[&str], change: impl FnOnce(&mut Asg)) -> Vec<(String, String)> {
        let mut inventory = fixture::expense_dev();
        let mut workload = inventory.workloads[0].clone();
        workload.kind = "Deployment".into();
        workload.images = vec![image.to_owned()];
        workload.autoscaler_flags = flags.iter().map(|f| (*f).to_owned()).collect();
        workload.key.name = "cluster-autoscaler".into();
        inventory.workloads.push(workload);
        let asg = inventory.asgs.values_mut().next().unwrap();
        for (key, value) in [
            (NODEGROUP_TAG, "expense-blue"),
            ("k8s.io/cluster-autoscaler/enabled", "true"),
        ] {
            asg.tags.push(AsgTag {
                key: key.into(),
                value: value.into(),
                propagate: true,
            });
        }
        change(asg);
        let plan = Plan::with_defaults("expense-dev", Minor::new(29));
        let route = crate::route::build_route(&plan, &inventory).unwrap();
        let case = ReadinessInput::new(&plan, &inventory, Some(&route));
        let mut out = Vec::new();
        check_autoscalers(&case, &mut out);
        out.into_iter().map(|f| (f.code, f.detail)).collect()
    }

    const FITS: &str = "registry.k8s.io/autoscaling/cluster-autoscaler:v1.29.4";
    const BY_TAG: &str = "--node-group-auto-discovery=asg:tag=k8s.io/cluster-autoscaler/enabled";

    fn codes(found: &[(String, String)]) -> Vec<&str> {
        found.iter().map(|(code, _)| code.as_str()).collect()
    }

    #[test]
    fn an_autoscaler_that_finds_groups_by_what_eks_sets_is_fine() {
        assert_eq!(found(FITS, &[BY_TAG], |_| {}), []);
    }

    #[test]
    fn an_autoscaler_that_knows_blue_alone_is_told_of() {
        let by_name = found(FITS, &["--nodes=1:9:eks-expense-blue"], |_| {});
        assert_eq!(codes(&by_name), ["EKSUP-N050"]);
        assert!(by_name[0].1.contains("eks-expense-blue"), "{by_name:?}");
        let flag = "--node-group-auto-discovery=asg:tag=eks:nodegroup-name=expense-blue";
        let by_tag = found(FITS, &[flag], |_| {});
        assert_eq!(codes(&by_tag), ["EKSUP-N050"]);
        // Both together find green by the second.
        assert_eq!(found(FITS, &[flag, BY_TAG], |_| {}), []);
        // Another group's autoscaler is nobody's business here.
        assert_eq!(found(FITS, &["--nodes=1:9:other"], |_| {}), []);
    }

    #[test]
    fn an_autoscaler_of_another_minor_and_one_that_cannot_be_read_are_told_of() {
        let old = found(&FITS.replace("29", "27"), &[BY_TAG], |_| {});
        assert_eq!(codes(&old), ["EKSUP-N051"]);
        assert!(old[0].1.contains("1.27"), "{old:?}");
        assert_eq!(codes(&found(FITS, &[], |_| {})), ["EKSUP-N052"]);
    }

    #[test]
    fn what_acts_on_a_group_is_told_of_whoever_manages_it() {
        let told = |mut inventory: crate::model::Inventory, plan: &str| {
            let name = inventory.asgs.keys().next().unwrap().clone();
            let automation = GroupAutomation {
                policies: vec!["cpu-50".into()],
                schedules: vec!["evening".into()],
                topics: vec![],
            };
            inventory.group_automation.insert(name, automation);
            let plan = crate::plan::parse_plan("plan.yaml", plan).unwrap();
            let route = crate::route::build_route(&plan, &inventory).unwrap();
            let case = ReadinessInput::new(&plan, &inventory, Some(&route));
            let mut out = Vec::new();
            check_autoscalers(&case, &mut out);
            let extras = out.into_iter().find(|f| f.code == "EKSUP-N054").unwrap();
            assert!(
                extras
                    .detail
                    .contains("scaling policy cpu-50, scheduled action evening, which")
                    && extras
                        .fix
                        .contains("suspend AlarmNotification or ScheduledActions"),
                "{extras:?}"
            );
        };
        told(fixture::expense_dev(), "cluster: expense-dev\nto: 1.29\n");
        told(
            fixture::self_managed_cluster(),
            "cluster: shop\nto: 1.29\nautoScalingGroups: [{blue: workers, ami: auto}]\n",
        );
    }

    #[test]
    fn what_somebody_did_to_blues_auto_scaling_group_is_told_of() {
        let suspended = found(FITS, &[BY_TAG], |asg| {
            asg.suspended = vec!["AZRebalance".into(), "Launch".into()];
        });
        assert_eq!(codes(&suspended), ["EKSUP-N053"]);
        assert!(
            suspended[0]
                .1
                .contains("eksup suspends AZRebalance for expense-green too")
                && suspended[0].1.contains("does not suspend Launch"),
            "{suspended:?}"
        );
        // What an unfinished run of this tool suspended is no news.
        let ours = found(FITS, &[BY_TAG], |asg| {
            asg.suspended = vec!["AZRebalance".into()];
            asg.tags.push(AsgTag {
                key: marks::AZ_REBALANCE_TAG.into(),
                value: "run".into(),
                propagate: false,
            });
        });
        assert_eq!(ours, []);
        let extras = found(FITS, &[BY_TAG], |asg| {
            let pool = WarmPool {
                min: 1,
                max_prepared: None,
                state: "Stopped".into(),
                reuse: false,
            };
            asg.warm_pool = Some(WarmPoolReading {
                pool,
                deleting: false,
                instances: vec![],
            });
            asg.instances[0].protected = true;
        });
        assert_eq!(codes(&extras), ["EKSUP-N054"]);
        let hook = |name: &str| LifecycleHook {
            name: name.to_owned(),
            transition: "autoscaling:EC2_INSTANCE_TERMINATING".to_owned(),
            default_result: "ABANDON".to_owned(),
            notifies: Some("arn:aws:sqs:us-east-1:123456789012:ends".to_owned()),
        };
        let hooked = |names: &[&str]| {
            let mut inventory = fixture::expense_dev();
            let hooks = names.iter().map(|n| hook(n)).collect();
            let asg = inventory.asgs.keys().next().unwrap().clone();
            inventory.lifecycle_hooks.insert(asg, hooks);
            let plan = Plan::with_defaults("expense-dev", Minor::new(29));
            let route = crate::route::build_route(&plan, &inventory).unwrap();
            let mut out = Vec::new();
            check_autoscalers(
                &ReadinessInput::new(&plan, &inventory, Some(&route)),
                &mut out,
            );
            out.into_iter().map(|f| f.detail).collect::<Vec<_>>()
        };
        // EKS gives every group its own two.
        assert!(hooked(EKS_HOOKS).is_empty());
        let told = hooked(&["Launch-LC-Hook", "drain-queue"]);
        assert!(
            told.len() == 1
                && told[0].contains(
                    "lifecycle hook drain-queue (terminating, ABANDON, notifies arn:aws:sqs"
                ),
            "{told:?}"
        );
        let told = &extras[0].1;
        assert!(
            told.contains("warm pool") && told.contains("scale-in protection of i-"),
            "{told}"
        );
    }
}
