//! Actions, by `iam:SimulatePrincipalPolicy` on the caller itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::actions::{SELF_MANAGED_GREEN, STACK_DELETION, attach_actions, register_actions};
use crate::aws::AwsApi;
use crate::aws::iam::{SimulatedCall, SimulatedDecision};
use crate::model::asg::Asg;
use crate::model::elb::is_classic;
use crate::model::node_source::NodeSource;
use crate::model::{ApiError, ErrorClass, Inventory};
use crate::ready::{Code, Finding, Severity};
use crate::route::{self, Route, StepSpec};

/// How long IAM may take in all. In a network without a way to it, it never answers.
const SIMULATION_TIMEOUT: Duration = Duration::from_secs(20);
/// What stands in an ARN for an id that AWS gives only when it makes the object.
const PLACEHOLDER_ID: &str = "00000000-0000-0000-0000-000000000000";

/// What the route needs and the caller may not do, or why nobody could say so.
pub async fn find_missing_actions(
    aws: &AwsApi,
    route: &Route,
    inventory: &Inventory,
) -> Result<Vec<Finding>, ApiError> {
    let caller = match aws.get_caller_identity().await {
        Ok((_, caller)) => caller,
        // Expired credentials are no missing permission: the caller has to sign in again.
        Err(e) if e.class == ErrorClass::Expired => return Err(e),
        Err(e) => {
            return Ok(vec![unchecked_finding(
                "the caller",
                &format!("{}: {}", e.op, e.message),
            )]);
        }
    };
    let Some(principal) = principal_of(&caller) else {
        let why = "its policies cannot be simulated: it is neither a user nor a role";
        return Ok(vec![unchecked_finding(&caller, why)]);
    };
    // All simulations share one time: where IAM cannot be reached, the first of them never answers.
    let calls = needed_calls(route, inventory);
    let asked = async {
        let mut decisions = Vec::new();
        for call in &calls {
            decisions.extend(aws.simulate_principal_policy(&principal, call).await?);
        }
        Ok::<_, ApiError>(decisions)
    };
    // What cannot be simulated is unknown, and a finding says so. It blocks nothing, as the call itself may be allowed.
    match tokio::time::timeout(SIMULATION_TIMEOUT, asked).await {
        Ok(Ok(decisions)) => Ok(refused_findings(&principal, &decisions)),
        Ok(Err(e)) if e.class == ErrorClass::Expired => Err(e),
        Ok(Err(e)) if e.class == ErrorClass::Absent => {
            let why = format!(
                "IAM knows no `{principal}`: a role with a path cannot be told from its session"
            );
            Ok(vec![unchecked_finding(&caller, &why)])
        }
        Ok(Err(e)) => Ok(vec![unchecked_finding(
            &caller,
            &format!("{}: {}", e.op, e.message),
        )]),
        Err(_) => {
            let why = format!(
                "IAM did not answer within {} s",
                SIMULATION_TIMEOUT.as_secs()
            );
            Ok(vec![unchecked_finding(&caller, &why)])
        }
    }
}

fn unchecked_finding(caller: &str, why: &str) -> Finding {
    Finding::new(
        Code::PermissionsUnchecked,
        format!("AWS permissions of {caller}"),
        why,
        "allow iam:SimulatePrincipalPolicy on the principal itself, or compare its policies with `eksup policy` by hand",
    )
}

/// The IAM ARN behind a caller: of a session its role, as far as a session tells it. The account's root has no policies.
fn principal_of(caller: &str) -> Option<String> {
    let mut parts = caller.splitn(6, ':');
    let (arn, partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (_region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
    match (arn, service, name.split_once('/')?) {
        ("arn", "iam", ("user" | "role", _)) => Some(caller.to_owned()),
        ("arn", "sts", ("assumed-role", session)) => {
            let (role, _) = session.split_once('/')?;
            Some(format!("arn:{partition}:iam::{account}:role/{role}"))
        }
        _ => None,
    }
}

/// What was refused, and what a condition leaves open; an action is named once, with one of its objects.
fn refused_findings(principal: &str, decisions: &[SimulatedDecision]) -> Vec<Finding> {
    // A refusal blocks. What depends on a condition key is unknown to a simulation, and only warns.
    let mut refused: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut open: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for decision in decisions.iter().filter(|d| !d.allowed) {
        if decision.missing_keys.is_empty() {
            refused
                .entry(&decision.action)
                .or_default()
                .push(&decision.resource);
        } else {
            let keys = decision.missing_keys.iter().map(String::as_str);
            open.entry(&decision.action).or_default().extend(keys);
        }
    }
    // One finding for each action, as a policy is written by action.
    let refused = refused.into_iter().map(|(action, resources)| {
        let more = match resources.len() {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        let on = resources.first().copied().unwrap_or_default();
        Finding::new(
            Code::PermissionMissing,
            action,
            format!("IAM says that {principal} may not do it on {on}{more}, which the plan needs"),
            "attach the policy that `eksup policy` prints to the caller, or remove the statement that denies it",
        )
    });
    // The condition may hold in the real call, so this is for a person to compare.
    let open = open.into_iter().map(|(action, keys)| {
        let keys: Vec<&str> = keys.into_iter().collect();
        Finding::new(
            Code::PermissionsUnchecked,
            action,
            format!(
                "whether {principal} may do it depends on {}, which a simulation does not know",
                keys.join(", ")
            ),
            "compare the condition of its policy with what the plan does, by hand",
        )
        .with_severity(Severity::Warning)
    });
    refused.chain(open).collect()
}

/// The writes of a route, as calls of the simulation.
fn needed_calls(route: &Route, inventory: &Inventory) -> Vec<SimulatedCall> {
    RequiredActions(writes_by_action(route, inventory)).into_calls()
}

/// The writes of a route by action, each on the objects it will be about; those of a rollback too.
pub fn writes_by_action(
    route: &Route,
    inventory: &Inventory,
) -> BTreeMap<&'static str, BTreeSet<String>> {
    let cluster = &inventory.cluster;
    // Partition and account come from the cluster's ARN, so that no further call is needed for them.
    let mut parts = cluster.arn.splitn(6, ':').skip(1);
    let partition = parts.next().unwrap_or("aws");
    let account = cluster.arn.split(':').nth(4).unwrap_or_default();
    let region = &inventory.region;
    let of = |service: &str, what: String| {
        format!("arn:{partition}:{service}:{region}:{account}:{what}")
    };
    // Groups that the route is yet to make have no ARN; a placeholder stands for the part that AWS gives.
    let group = |name: &str| {
        let known = inventory.find_nodegroup(name).map(|g| g.arn.clone());
        known.unwrap_or_else(|| {
            of(
                "eks",
                format!("nodegroup/{}/{name}/{PLACEHOLDER_ID}", cluster.name),
            )
        })
    };
    // EKS makes the Auto Scaling groups and begins their names with `eks-` and the node group's, which is what policies
    // match.
    let asgs = |name: &str| -> Vec<String> {
        let named = |asg: &str| {
            let what = format!("autoScalingGroup:{PLACEHOLDER_ID}:autoScalingGroupName/{asg}");
            of("autoscaling", what)
        };
        // One whose ARN was not read is asked about by its name, and not left out.
        let arn = |a: &Asg| a.arn.clone().unwrap_or_else(|| named(&a.name));
        let known: Vec<String> = inventory.asgs_of(name).map(arn).collect();
        match (known.is_empty(), route.source_of(name)) {
            (false, _) => known,
            (true, NodeSource::ManagedGroup) => {
                vec![named(&format!("eks-{name}-{PLACEHOLDER_ID}"))]
            }
            (true, NodeSource::AutoScalingGroup) => vec![named(name)],
            (true, NodeSource::NodePool) => Vec::new(),
        }
    };
    // Classic balancers are known by name, and no answer has their ARN.
    let served_arn = |served: &str| match is_classic(served) {
        true => of("elasticloadbalancing", format!("loadbalancer/{served}")),
        false => served.to_owned(),
    };
    let mut asked = RequiredActions::default();
    let resize = |asked: &mut RequiredActions, name: &str| match route.source_of(name) {
        NodeSource::ManagedGroup => asked.add_action("eks:UpdateNodegroupConfig", [group(name)]),
        NodeSource::AutoScalingGroup => {
            asked.add_action("autoscaling:UpdateAutoScalingGroup", asgs(name));
        }
        // Karpenter calls AWS itself.
        NodeSource::NodePool => {}
    };
    for step in &route.steps {
        match &step.spec {
            StepSpec::ControlPlane { .. } => {
                asked.add_action("eks:UpdateClusterVersion", [cluster.arn.clone()]);
            }
            StepSpec::Addon { change, .. } => {
                let addon = format!("addon/{}/{}/{PLACEHOLDER_ID}", cluster.name, change.name);
                asked.add_action("eks:UpdateAddon", [of("eks", addon)]);
                let role = change.service_account_role_arn.clone();
                asked.add_action("iam:PassRole", role);
            }
            StepSpec::LaunchTemplate { template, .. } => {
                let template = of("ec2", format!("launch-template/{template}"));
                asked.add_action("ec2:CreateLaunchTemplateVersion", [template]);
            }
            StepSpec::ConfigurationTemplate { .. } => {
                // A template that is yet to be made has no id; a rollback deletes it. It is tagged as it is made (IAM-12).
                let any = of("ec2", "launch-template/*".to_owned());
                for action in [
                    "ec2:CreateLaunchTemplate",
                    "ec2:CreateTags",
                    "ec2:DeleteLaunchTemplate",
                ] {
                    asked.add_action(action, [any.clone()]);
                }
            }
            StepSpec::CreateGreen {
                group: green,
                copy_asg_tags,
                ..
            } => {
                // Processes that are suspended for blue are for green too, and tags are copied where the plan wants it.
                asked.add_action("autoscaling:SuspendProcesses", asgs(&green.name));
                if *copy_asg_tags {
                    asked.add_action("autoscaling:CreateOrUpdateTags", asgs(&green.name));
                }
                match route.source_of(&green.name) {
                    NodeSource::ManagedGroup => {}
                    NodeSource::AutoScalingGroup => {
                        for action in SELF_MANAGED_GREEN {
                            asked.add_action(action, asgs(&green.name));
                        }
                        continue;
                    }
                    NodeSource::NodePool => continue,
                }
                asked.add_action("eks:CreateNodegroup", [cluster.arn.clone()]);
                for action in ["eks:TagResource", "eks:DeleteNodegroup"] {
                    asked.add_action(action, [group(&green.name)]);
                }
                asked.add_action("iam:PassRole", [green.node_role.clone()]);
                asked.add_action(
                    "iam:GetRole",
                    [format!("arn:{partition}:iam::{account}:role/aws-service-role/eks-nodegroup.amazonaws.com/AWSServiceRoleForAmazonEKSNodegroup")],
                );
            }
            // Marks on nodes.
            StepSpec::HoldGreen { .. } | StepSpec::ReleaseGreen { .. } => {}
            // Marks on nodes; a rollback may grow blue back to its size.
            StepSpec::HoldBlue { blue, .. } => resize(&mut asked, blue),
            StepSpec::CordonBlue { blue, .. } => {
                resize(&mut asked, blue);
                // A tag says that the suspension is the run's, and is taken off with it.
                for action in [
                    "autoscaling:CreateOrUpdateTags",
                    "autoscaling:DeleteTags",
                    "autoscaling:SuspendProcesses",
                    "autoscaling:ResumeProcesses",
                ] {
                    asked.add_action(action, asgs(blue));
                }
            }
            // A rollback gives blue its pool back, and takes green's.
            StepSpec::RemoveWarmPool { blue: group, .. }
            | StepSpec::AddWarmPool { green: group, .. } => {
                for action in ["autoscaling:PutWarmPool", "autoscaling:DeleteWarmPool"] {
                    asked.add_action(action, asgs(group));
                }
                // The mark that tells a later route what blue had; green gets none.
                if matches!(&step.spec, StepSpec::RemoveWarmPool { .. }) {
                    for action in ["autoscaling:CreateOrUpdateTags", "autoscaling:DeleteTags"] {
                        asked.add_action(action, asgs(group));
                    }
                }
            }
            StepSpec::AttachTargets {
                green,
                target_group,
            } => {
                for action in attach_actions(target_group) {
                    asked.add_action(action, asgs(green));
                }
            }
            StepSpec::DetachTargets {
                blue, target_group, ..
            } => {
                // The same choice as the step makes: through the Auto Scaling group, or instance by instance.
                let by_hand = !route::manually_registered(inventory, blue, target_group).is_empty();
                let (attaching, registering) =
                    (attach_actions(target_group), register_actions(target_group));
                for action in attaching.into_iter().filter(|_| !by_hand) {
                    asked.add_action(action, asgs(blue));
                }
                for action in registering.into_iter().filter(|_| by_hand) {
                    asked.add_action(action, [served_arn(target_group)]);
                }
            }
            StepSpec::AddToRules { shift, .. } | StepSpec::Shift { shift, .. } => {
                for arn in &shift.rules {
                    // A default action is changed through its listener (ELB-1), which is another permission.
                    let known = inventory.rules.iter().find(|r| r.arn == *arn);
                    if arn.contains(":listener/") {
                        asked.add_action("elasticloadbalancing:ModifyListener", [arn.clone()]);
                    } else if let Some(rule) = known.filter(|r| r.is_default) {
                        let listener = rule.listener.clone();
                        asked.add_action("elasticloadbalancing:ModifyListener", [listener]);
                    } else {
                        asked.add_action("elasticloadbalancing:ModifyRule", [arn.clone()]);
                    }
                }
            }
            // The drain takes nodes out of these target groups itself, and its rollback puts them back.
            StepSpec::Drain { blue, green, drain } => {
                // Where pods have nowhere to go green grows, and in a rollback blue.
                for grows in [blue, green] {
                    resize(&mut asked, grows);
                }
                for served in &drain.deregister_from {
                    for action in register_actions(served) {
                        asked.add_action(action, [served_arn(served)]);
                    }
                }
            }
            StepSpec::Retire {
                blue,
                delete,
                target_groups,
                ..
            } => {
                for served in target_groups {
                    if route::manually_registered(inventory, blue, served).is_empty() {
                        for action in attach_actions(served) {
                            asked.add_action(action, asgs(blue));
                        }
                        continue;
                    }
                    for action in register_actions(served) {
                        asked.add_action(action, [served_arn(served)]);
                    }
                }
                match (delete, route.source_of(blue)) {
                    (true, NodeSource::ManagedGroup) => {
                        asked.add_action("eks:DeleteNodegroup", [group(blue)]);
                    }
                    (false, NodeSource::ManagedGroup) => resize(&mut asked, blue),
                    (_, NodeSource::AutoScalingGroup) => {
                        resize(&mut asked, blue);
                        asked.add_action("autoscaling:SetInstanceProtection", asgs(blue));
                        let end = delete.then(|| asgs(blue)).unwrap_or_default();
                        asked.add_action("autoscaling:DeleteAutoScalingGroup", end);
                    }
                    (_, NodeSource::NodePool) => {}
                }
            }
            // CloudFormation deletes the group with the caller's rights (CFN-17).
            StepSpec::DeleteStack { blue, stack } => {
                // By its name where no tag has its ARN.
                let named = of("cloudformation", format!("stack/{stack}/*"));
                let arn = if stack.starts_with("arn:") {
                    stack
                } else {
                    &named
                };
                for action in STACK_DELETION {
                    asked.add_action(action, [arn.clone()]);
                }
                match route.source_of(blue) {
                    NodeSource::ManagedGroup => {
                        asked.add_action("eks:DeleteNodegroup", [group(blue)]);
                    }
                    NodeSource::AutoScalingGroup => {
                        asked.add_action("autoscaling:DeleteAutoScalingGroup", asgs(blue));
                    }
                    NodeSource::NodePool => {}
                }
            }
            // These change nothing in AWS.
            StepSpec::Bake { .. }
            | StepSpec::Soak { .. }
            | StepSpec::HoldPool { .. }
            | StepSpec::DriftPool { .. }
            | StepSpec::ReleasePool { .. }
            | StepSpec::RestartFargate { .. }
            | StepSpec::WaitAutoMode { .. } => {}
        }
    }
    asked.0
}

/// Actions and the objects each is about.
#[derive(Default)]
struct RequiredActions(BTreeMap<&'static str, BTreeSet<String>>);

impl RequiredActions {
    fn add_action(&mut self, action: &'static str, resources: impl IntoIterator<Item = String>) {
        self.0.entry(action).or_default().extend(resources);
    }

    /// One call for all actions on the same objects.
    fn into_calls(self) -> Vec<SimulatedCall> {
        // PassRole has a condition key of its own, so it shares a call with nothing else.
        let mut calls: BTreeMap<(Vec<String>, bool), Vec<&'static str>> = BTreeMap::new();
        for (action, resources) in self.0.into_iter().filter(|(_, r)| !r.is_empty()) {
            let passes = action == "iam:PassRole";
            let resources: Vec<String> = resources.into_iter().collect();
            calls.entry((resources, passes)).or_default().push(action);
        }
        let call = |((resources, passes), actions)| SimulatedCall {
            actions,
            resources,
            context: match passes {
                true => vec![("iam:PassedToService", "eks.amazonaws.com".to_owned())],
                false => Vec::new(),
            },
        };
        calls.into_iter().map(call).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{build_route, fixture};

    #[test]
    fn a_callers_principal_is_its_user_or_its_role_and_nothing_else() {
        let table = [
            (
                "arn:aws:iam::123456789012:user/ci/deployer",
                Some("arn:aws:iam::123456789012:user/ci/deployer"),
            ),
            (
                "arn:aws-cn:sts::123456789012:assumed-role/eksup/run-7",
                Some("arn:aws-cn:iam::123456789012:role/eksup"),
            ),
            ("arn:aws:iam::123456789012:root", None),
            ("arn:aws:sts::123456789012:federated-user/ann", None),
            ("", None),
        ];
        for (caller, principal) in table {
            assert_eq!(principal_of(caller).as_deref(), principal, "{caller}");
        }
    }

    #[test]
    fn a_refusal_blocks_and_a_refusal_for_want_of_a_key_only_warns() {
        let decision = |action: &str, resource: &str, allowed, keys: &[&str]| SimulatedDecision {
            action: action.to_owned(),
            resource: resource.to_owned(),
            allowed,
            missing_keys: keys.iter().map(ToString::to_string).collect(),
        };
        let found = refused_findings(
            "arn:aws:iam::1:role/eksup",
            &[
                decision("eks:CreateNodegroup", "cluster", true, &[]),
                decision("elasticloadbalancing:ModifyRule", "rule-1", false, &[]),
                decision("elasticloadbalancing:ModifyRule", "rule-2", false, &[]),
                decision(
                    "autoscaling:DeleteTags",
                    "g",
                    false,
                    &["aws:ResourceTag/team"],
                ),
            ],
        );
        let short: Vec<(Severity, &str, &str)> = found
            .iter()
            .map(|f| (f.severity, f.code.as_str(), f.subject.as_str()))
            .collect();
        assert_eq!(
            short,
            [
                (
                    Severity::Blocker,
                    "EKSUP-U002",
                    "elasticloadbalancing:ModifyRule"
                ),
                (Severity::Warning, "EKSUP-U003", "autoscaling:DeleteTags"),
            ]
        );
        assert!(found[0].detail.contains("rule-1 and 1 more"), "{found:?}");
        assert!(
            found[1].detail.contains("aws:ResourceTag/team"),
            "{found:?}"
        );
    }

    #[test]
    fn each_write_of_a_route_is_asked_about_on_its_own_object() {
        let inventory = fixture::expense_dev();
        let text = "cluster: expense-dev\nto: 1.29\ntraffic: {routes: [{rule: every, blue: expense-blue-tg, green: expense-green-tg}]}\n";
        let plan = crate::plan::parse_plan("plan.yaml", text).unwrap();
        let route = build_route(&plan, &inventory).unwrap();
        let calls = needed_calls(&route, &inventory);
        let of = |action: &str| -> Vec<&String> {
            let about = calls.iter().filter(|c| c.actions.contains(&action));
            about.flat_map(|c| &c.resources).collect()
        };
        assert_eq!(of("eks:UpdateClusterVersion"), [&inventory.cluster.arn]);
        let rules = of("elasticloadbalancing:ModifyRule").len()
            + of("elasticloadbalancing:ModifyListener").len();
        assert!(rules > 0, "{calls:#?}");
        let deleted = of("eks:DeleteNodegroup");
        let named = |name: &str| deleted.iter().any(|arn| arn.contains(&format!("/{name}/")));
        assert!(
            named("expense-blue") && named("expense-green"),
            "{deleted:?}"
        );
        let passes = calls.iter().find(|c| c.actions.contains(&"iam:PassRole"));
        assert_eq!(
            passes.unwrap().context,
            [("iam:PassedToService", "eks.amazonaws.com".to_owned())]
        );
    }

    #[test]
    fn writes_on_blue_and_on_green_are_asked_about_each_and_no_write_that_no_step_makes() {
        let inventory = fixture::expense_dev();
        let text = "cluster: expense-dev\nto: 1.29\n";
        let plan = crate::plan::parse_plan("plan.yaml", text).unwrap();
        let drawn = build_route(&plan, &inventory).unwrap();
        let on = |copy: bool, action: &str| -> Vec<&'static str> {
            let mut route = drawn.clone();
            for step in &mut route.steps {
                if let StepSpec::CreateGreen { copy_asg_tags, .. } = &mut step.spec {
                    *copy_asg_tags = copy;
                }
            }
            let writes = writes_by_action(&route, &inventory);
            let arns = writes.get(action).cloned().unwrap_or_default();
            let named = |part: &&str| arns.iter().any(|arn| arn.contains(part));
            ["expense-blue", "expense-green"]
                .into_iter()
                .filter(named)
                .collect()
        };
        let both = ["expense-blue", "expense-green"];
        assert_eq!(on(true, "autoscaling:SuspendProcesses"), both);
        assert_eq!(on(true, "autoscaling:CreateOrUpdateTags"), both);
        assert_eq!(
            on(false, "autoscaling:CreateOrUpdateTags"),
            ["expense-blue"]
        );
        assert_eq!(on(true, "autoscaling:DeleteTags"), ["expense-blue"]);
        assert_eq!(on(true, "autoscaling:ResumeProcesses"), ["expense-blue"]);
        assert_eq!(on(true, "eks:UpdateNodegroupConfig"), both);
    }
}
