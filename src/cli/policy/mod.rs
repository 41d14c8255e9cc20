//! `eksup policy`.

mod iam;
pub(super) mod rbac;

use clap::Args;

use super::args::{FormatArg, PlanArg};
use super::context::Context;
use super::error::CliError;
use super::start::usage;
use crate::plan::Plan;

/// Print the least IAM policy and ClusterRole that a plan needs
///
/// `--format json` and `--format terraform` print the IAM policy, `--format rbac` the ClusterRole and its binding.
/// Without a plan: what any plan can need. Nothing is asked of AWS.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(flatten)]
    plan: PlanArg,
}

/// Prints the policy.
pub fn run(cx: &Context, args: PolicyArgs) -> Result<(), CliError> {
    let named = args.plan.plan.is_some() || args.plan.cluster.is_some();
    let plan = if named {
        Some(cx.plan(&args.plan)?.1)
    } else {
        None
    };
    let needs = Needs::of(plan.as_ref());
    cx.ui.out(&match cx.global.format {
        FormatArg::Text | FormatArg::Json => iam::json(&needs),
        FormatArg::Terraform => iam::terraform(&needs),
        FormatArg::Rbac => rbac::yaml(&needs),
        FormatArg::Markdown => return Err(usage("a policy has no Markdown form")),
    })
}

/// What of the permissions depends on the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Needs {
    pub delete_groups: bool,
    pub templates: bool,
    pub delete_pods: bool,
    pub restart_deployments: bool,
    pub topics: Vec<String>,
    pub cluster: Option<String>,
}

impl Needs {
    pub(super) fn of(plan: Option<&Plan>) -> Self {
        let Some(plan) = plan else {
            let (delete_groups, templates, delete_pods, restart_deployments) =
                (true, true, true, true);
            let topics = vec!["*".to_owned()];
            return Self {
                delete_groups,
                templates,
                delete_pods,
                restart_deployments,
                topics,
                cluster: None,
            };
        };
        let topic = |n: &crate::plan::Notify| match n {
            crate::plan::Notify::Sns { topic, .. } => Some(topic.clone()),
            crate::plan::Notify::Webhook { .. } => None,
        };
        Self {
            // A rollback deletes green, whatever becomes of blue.
            delete_groups: true,
            // Whether a group has a template is the cluster's to say, unless every group is named.
            templates: plan.node_groups.is_empty()
                || plan
                    .node_groups
                    .iter()
                    .any(|g| g.ami.is_some() || g.launch_template_version.is_some()),
            delete_pods: plan.drain.on_deadline == crate::plan::OnDeadline::Delete,
            restart_deployments: plan.drain.single_replicas == crate::plan::SingleReplicas::Surge,
            topics: plan.notify.iter().filter_map(topic).collect(),
            cluster: Some(plan.cluster.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Minor;

    #[test]
    fn a_careful_plan_may_not_delete_pods_and_a_harsh_one_may() {
        let mut plan = Plan::of("prod", Minor::new(30));
        assert!(!rbac::yaml(&Needs::of(Some(&plan))).contains("delete"));
        plan.drain.on_deadline = crate::plan::OnDeadline::Delete;
        assert!(rbac::yaml(&Needs::of(Some(&plan))).contains("verbs: [delete]"));
    }

    #[test]
    fn the_policy_is_json_and_only_names_what_it_must() {
        let plan = Plan::of("prod", Minor::new(30));
        let text = iam::json(&Needs::of(Some(&plan)));
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
}
