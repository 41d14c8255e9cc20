//! `--iam-policy` and `--rbac`: what the twin lets the caller do.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CliError;
use super::start::usage;
use crate::twin::aws::{Iam, Policy, caller};
use crate::twin::k8s::Rbac;
use crate::twin::world::World;

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
    /// Has `world` enforce what the files say.
    pub fn enforce(&self, world: &mut World) -> Result<(), CliError> {
        if let Some(path) = &self.iam_policy {
            let policy: Policy = read(path)?.parse().map_err(|e| unfit(path, &e))?;
            world.cloud.iam = Some(Iam::new(policy));
        }
        if let Some(path) = &self.rbac {
            let user = caller(&world.cloud.account);
            let rbac = Rbac::read(&read(path)?, &user).map_err(|e| unfit(path, &e))?;
            world.kube.restrict(rbac);
        }
        Ok(())
    }
}

/// What was allowed and never needed, a line for each kind; only of what is enforced.
pub fn unused(world: &World) -> Vec<String> {
    let line = |what: &str, unused: std::collections::BTreeSet<String>| {
        let list: Vec<String> = unused.into_iter().collect();
        (!list.is_empty())
            .then(|| format!("allowed by {what} and not needed here: {}", list.join(", ")))
    };
    let iam = world.cloud.iam.as_ref();
    let iam = iam.and_then(|iam| line("the IAM policy", iam.unused()));
    let rbac = world.kube.rbac();
    let rbac = rbac.and_then(|rbac| line("the roles", rbac.unused()));
    iam.into_iter().chain(rbac).collect()
}

fn read(path: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(path).map_err(|e| unfit(path, &e))
}

fn unfit(path: &Path, why: &dyn std::fmt::Display) -> CliError {
    usage(format!("{}: {why}", path.display()))
}
