//! `--iam-policy` and `--rbac`: what the twin lets the caller do.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::run::error::{RunError, usage_error};
use crate::twin::aws::{IamAuthorizer, Policy, caller_arn};
use crate::twin::k8s::RbacAuthorizer;
use crate::twin::world::SimWorld;

/// What the twin lets the caller do; everything, unless it is said.
#[derive(Clone, Debug, Default, Args)]
pub struct GuardArgs {
    /// Allow of AWS only what this IAM policy allows; `eksup policy` prints one
    #[arg(long, value_name = "FILE")]
    iam_policy: Option<PathBuf>,
    /// Allow of Kubernetes only what these roles allow; `eksup policy --format rbac` prints them
    #[arg(long, value_name = "FILE")]
    rbac: Option<PathBuf>,
}

impl GuardArgs {
    /// The flags as they were given.
    pub fn to_flags(&self) -> Vec<String> {
        let flags = [("--iam-policy", &self.iam_policy), ("--rbac", &self.rbac)];
        let given = flags
            .into_iter()
            .filter_map(|(flag, path)| Some((flag, path.as_ref()?)));
        given
            .flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()])
            .collect()
    }

    /// Has `world` enforce what the files say.
    pub fn apply_to_world(&self, world: &mut SimWorld) -> Result<(), RunError> {
        if let Some(path) = &self.iam_policy {
            let policy: Policy = read_policy_file(path)?
                .parse()
                .map_err(|e| unfit_file(path, &e))?;
            world.cloud.iam = Some(IamAuthorizer::new(policy));
        }
        if let Some(path) = &self.rbac {
            let user = caller_arn(&world.cloud.account);
            let rbac = RbacAuthorizer::parse_roles(&read_policy_file(path)?, &user)
                .map_err(|e| unfit_file(path, &e))?;
            world.kube.restrict_to(rbac);
        }
        Ok(())
    }
}

/// What was allowed and never needed, a line for each kind; only of what is enforced.
pub fn unused_permissions(world: &SimWorld) -> Vec<String> {
    let line = |what: &str, unused: std::collections::BTreeSet<String>| {
        let list: Vec<String> = unused.into_iter().collect();
        (!list.is_empty())
            .then(|| format!("allowed by {what} and not needed here: {}", list.join(", ")))
    };
    let iam = world.cloud.iam.as_ref();
    let iam = iam.and_then(|iam| line("the IAM policy", iam.unused_actions()));
    let rbac = world.kube.rbac();
    let rbac = rbac.and_then(|rbac| line("the roles", rbac.unused_permissions()));
    iam.into_iter().chain(rbac).collect()
}

fn read_policy_file(path: &Path) -> Result<String, RunError> {
    std::fs::read_to_string(path).map_err(|e| unfit_file(path, &e))
}

fn unfit_file(path: &Path, why: &dyn std::fmt::Display) -> RunError {
    usage_error(format!("{}: {why}", path.display()))
}
