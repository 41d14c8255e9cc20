//! `eksup policy`.

mod iam;

use std::path::PathBuf;

use clap::Args;

use super::args::{FormatArg, PlanArg};
use super::context::CommandContext;
use super::offline;
use crate::ready::unproved_profiles;
use crate::run::error::{RunError, usage_error};
use crate::run::judged_route;
use crate::run::not_ready::not_ready_error;
use crate::run::permissions::needs::PermissionNeeds;
use crate::run::permissions::rbac;
use crate::run::permissions::writes_by_action;

/// Print the least IAM policy and ClusterRole that a plan needs
///
/// `--format json` and `--format terraform` print the IAM policy, `--format rbac` the ClusterRole and its binding.
/// Without a plan, they are the permissions that any plan can need. No call is made to AWS. With a snapshot of the plan's
/// cluster, the permissions to change load balancers are limited to the target groups, rules and listeners that the plan
/// changes there.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Name the exact target groups, rules and listeners, from this snapshot of the cluster
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,
}

/// Prints the IAM policy or the roles that a plan needs.
pub fn print_policy(cx: &CommandContext, args: PolicyArgs) -> Result<(), RunError> {
    let named = args.plan.plan.is_some() || args.plan.cluster.is_some();
    let plan = if named {
        Some(cx.load_plan(&args.plan)?.1)
    } else {
        None
    };
    // Without a snapshot nothing is known of the cluster, so what is written there is allowed by pattern.
    let mut needs = PermissionNeeds::from_plan(plan.as_ref());
    if let Some(path) = &args.snapshot {
        let plan = plan.ok_or_else(|| usage_error("--snapshot needs a plan"))?;
        let inventory = offline::read_inventory(path, &plan)?;
        let (drawn, found) = judged_route::build_and_judge(&plan, &inventory);
        let drawn = drawn.ok_or_else(|| {
            not_ready_error(
                &plan.cluster,
                &found,
                &cx.command_again("policy", &args.plan),
            )
        })?;
        needs.narrow_to_writes(&writes_by_action(&drawn, &inventory));
        needs.narrow_to_nodes(&plan, &inventory);
        needs.reads_node_access = !unproved_profiles(&plan, &drawn, &inventory).is_empty();
    }
    cx.ui.write_result(&match cx.global.format {
        FormatArg::Text | FormatArg::Json => iam::render_json(&needs),
        FormatArg::Terraform => iam::render_terraform(&needs),
        FormatArg::Rbac => rbac::render_yaml(&needs),
        FormatArg::Markdown => return Err(usage_error("a policy has no Markdown form")),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::Minor;
    use crate::plan::{Plan, RuleRef};
    use crate::run::permissions::needs::changed_rules;

    #[test]
    fn every_plan_may_delete_pods_because_a_rollback_deletes_those_of_green_that_are_not_ready() {
        let plan = Plan::with_defaults("prod", Minor::new(30));
        assert!(
            rbac::render_yaml(&PermissionNeeds::from_plan(Some(&plan))).contains("verbs: [delete]")
        );
    }

    #[test]
    fn the_policy_is_json_and_only_names_what_it_must() {
        let plan = Plan::with_defaults("prod", Minor::new(30));
        let text = iam::render_json(&PermissionNeeds::from_plan(Some(&plan)));
        let policy: serde_json::Value = serde_json::from_str(&text).unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        let actions: Vec<&str> = statements
            .iter()
            .flat_map(|s| s["Action"].as_array().unwrap())
            .map(|a| a.as_str().unwrap())
            .collect();
        assert!(actions.contains(&"eks:UpdateClusterVersion"));
        assert!(!actions.contains(&"sns:Publish"));
        assert!(actions.iter().all(|a| !a.contains('*')));
        assert!(text.contains("cluster/prod"));
    }

    #[test]
    fn weights_may_be_changed_where_the_plan_says_and_nowhere_else() {
        let arn = "arn:aws:elasticloadbalancing:us-east-1:1:listener-rule/app/web/1a/2b/3c";
        let named = |load_balancer: &str, conditions: &[&str]| RuleRef::Match {
            load_balancer: load_balancer.to_owned(),
            port: 443,
            conditions: conditions.iter().map(|c| (*c).to_owned()).collect(),
        };
        let set = |arns: &[&str]| arns.iter().map(|a| (*a).to_owned()).collect();
        for (route, rules, listeners) in [
            (
                RuleRef::Arn(arn.to_owned()),
                set(&[arn]),
                set(&["arn:aws:elasticloadbalancing:us-east-1:1:listener/app/web/1a/2b"]),
            ),
            (
                RuleRef::Arn(
                    "arn:aws:elasticloadbalancing:us-east-1:1:listener/net/n/1/2".to_owned(),
                ),
                set(&[]),
                set(&["arn:aws:elasticloadbalancing:us-east-1:1:listener/net/n/1/2"]),
            ),
            (
                named("web", &["path-pattern=/api/*"]),
                set(&["arn:*:elasticloadbalancing:*:*:listener-rule/app/web/*"]),
                set(&[]),
            ),
            (
                named("web", &[]),
                set(&[]),
                set(&[
                    "arn:*:elasticloadbalancing:*:*:listener/app/web/*",
                    "arn:*:elasticloadbalancing:*:*:listener/net/web/*",
                ]),
            ),
        ] {
            let wanted: (BTreeSet<String>, BTreeSet<String>) = (rules, listeners);
            assert_eq!(
                changed_rules(std::slice::from_ref(&route)),
                wanted,
                "{route:?}"
            );
        }
        assert_eq!(changed_rules(&[]), Default::default());
        // Without routes no weight changes.
        let plan = Plan::with_defaults("prod", Minor::new(30));
        let text = iam::render_json(&PermissionNeeds::from_plan(Some(&plan)));
        assert!(!text.contains("ModifyRule") && !text.contains("ModifyListener"));
    }

    #[test]
    fn with_a_snapshot_only_what_the_plan_changes_at_load_balancers_is_named() {
        let resources = |local: bool| {
            let mut inventory = crate::route::fixture::expense_dev();
            if local {
                inventory.services[0].external_traffic_policy = Some("Local".to_owned());
            }
            let text = "cluster: expense-dev\nto: 1.29\ntraffic: {routes: [{rule: every, blue: expense-blue-tg, green: expense-green-tg}]}\n";
            let plan = crate::plan::parse_plan("plan.yaml", text).unwrap();
            let route = crate::route::build_route(&plan, &inventory).unwrap();
            let mut needs = PermissionNeeds::from_plan(Some(&plan));
            needs.narrow_to_writes(&writes_by_action(&route, &inventory));
            let policy: serde_json::Value =
                serde_json::from_str(&iam::render_json(&needs)).unwrap();
            let statements = policy["Statement"].as_array().unwrap().iter();
            let writes = statements.filter(|s| {
                let actions = s["Action"].as_array().unwrap().iter();
                let mut names = actions.filter_map(|a| a.as_str());
                names.any(|a| a.starts_with("elasticloadbalancing:") && !a.contains(":Describe"))
            });
            let of = |s: &serde_json::Value| s["Resource"].as_array().unwrap().clone();
            let all: Vec<serde_json::Value> = writes.flat_map(of).collect();
            serde_json::from_value::<Vec<String>>(all.into()).unwrap()
        };
        let plain = resources(false);
        assert!(
            plain.len() == 1 && plain[0].contains(":listener-rule/app/expense-dev-alb/"),
            "{plain:?}"
        );
        let local = resources(true);
        assert!(
            local.len() == 2 && local.contains(&crate::route::fixture::tg_arn("expense-blue-tg")),
            "{local:?}"
        );
        assert!(local.iter().all(|arn| !arn.contains('*')), "{local:?}");
    }

    #[test]
    fn whether_nodes_may_join_is_read_for_self_managed_groups_and_never_a_must() {
        let own = "autoScalingGroups: [{blue: workers, ami: auto}]\n";
        for (groups, reads) in [("", false), (own, true)] {
            let text = format!("cluster: prod\nto: 1.30\n{groups}");
            let plan = crate::plan::parse_plan("plan.yaml", &text).unwrap();
            let needs = PermissionNeeds::from_plan(Some(&plan));
            let iam = iam::render_json(&needs);
            for said in ["iam:GetInstanceProfile", "access-entry/prod/*"] {
                assert_eq!(iam.contains(said), reads, "{said}: {iam}");
            }
            assert_eq!(rbac::render_yaml(&needs).contains("aws-auth"), reads);
            let verbs = rbac::required_verbs(&needs);
            assert!(verbs.iter().all(|v| v.name != Some("aws-auth")));
        }
    }

    #[test]
    fn a_group_can_be_made_whether_or_not_the_plan_names_it() {
        let mut plan = Plan::with_defaults("prod", Minor::new(30));
        for named in [false, true] {
            if named {
                plan.node_groups = vec![crate::plan::NodeGroup::with_defaults(
                    "blue",
                    crate::plan::Strategy::BlueGreen,
                )];
            }
            let text = iam::render_json(&PermissionNeeds::from_plan(Some(&plan)));
            for action in [
                "iam:PassRole",
                "iam:GetRole",
                "iam:ListAttachedRolePolicies",
                "ec2:RunInstances",
                "ec2:CreateTags",
            ] {
                assert!(text.contains(action), "{action}, named: {named}");
            }
            assert!(!text.contains("ec2:CreateLaunchTemplateVersion"));
        }
    }
}
