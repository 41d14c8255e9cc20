//! What a command has at hand: the global flags, the plan, and the way to the cluster.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::args::{GlobalArgs, PlanArg};
use super::ui::Ui;
use crate::aws::AwsApi;
use crate::clients::sdk_config;
use crate::inventory::connect::{ApiServerAccess, connect_cluster};
use crate::model::Clock;
use crate::plan::{self, Plan};
use crate::run::cluster_connection::{ClusterConnection, retry_throttled};
use crate::run::context::RunCommands;
use crate::run::error::{RunError, RunErrorKind, usage_error};
use crate::run::logging::disable_logging;

/// What a command has at hand.
#[derive(Clone, Debug)]
pub struct CommandContext {
    pub global: GlobalArgs,
    pub ui: Ui,
}

impl CommandContext {
    /// Puts flags and ways of saying things together.
    pub fn new(global: GlobalArgs, ui: Ui) -> Self {
        Self { global, ui }
    }

    /// Loads the plan that was named, and says which file it was.
    pub fn load_plan(&self, arg: &PlanArg) -> Result<(PathBuf, Plan), RunError> {
        let path = self.plan_path(arg)?;
        let plan = plan::load_plan(&path)?;
        Ok((path, plan))
    }

    /// The file that was named: itself, by its cluster, or the only one there is.
    pub fn plan_path(&self, arg: &PlanArg) -> Result<PathBuf, RunError> {
        match (&arg.plan, &arg.cluster) {
            (Some(path), _) => Ok(path.clone()),
            (None, Some(name)) => {
                let path = plan_path_by_name(name);
                if path.exists() {
                    return Ok(path);
                }
                Err(RunError::new(
                    RunErrorKind::PlanInvalid,
                    format!("there is no plan `{}`", path.display()),
                )
                .with_next_command(self.command_again("init", arg)))
            }
            (None, None) => find_only_plan(),
        }
    }

    /// The cluster's name and its region, from a plan or by name alone.
    pub fn cluster_and_region(&self, arg: &PlanArg) -> Result<(String, Option<String>), RunError> {
        match &arg.cluster {
            Some(name) if !plan_path_by_name(name).exists() => Ok((name.clone(), None)),
            Some(_) | None => self
                .load_plan(arg)
                .map(|(_, plan)| (plan.cluster, plan.region)),
        }
    }

    /// Finds the real cluster with the machine's credentials and reaches its API server.
    pub async fn connect_cluster(
        &self,
        cluster: &str,
        region: Option<&str>,
    ) -> Result<ClusterConnection, RunError> {
        let clock = Clock::system();
        // A wrong path is told before anything is asked of AWS.
        if let Some(path) = &self.global.kubeconfig {
            std::fs::File::open(path).map_err(|error| {
                let path = path.display();
                usage_error(format!("the kubeconfig `{path}` cannot be read: {error}"))
            })?;
        }
        // What is typed goes before the plan, and the plan before the environment.
        let region = self.global.region.as_deref().or(region);
        let profile = self.global.profile.as_deref();
        // An unknown profile would fall through to other credentials, and so to another account.
        if let Some(name) = profile
            && let Some(others) = sdk_config::profiles_instead_of(name).await
        {
            return Err(unknown_profile_error(name, &others));
        }
        let (config, chain) = sdk_config::load_machine_config(profile, region, &clock).await?;
        let (aws, way) = (
            AwsApi::with_machine_credentials(&config, chain),
            self.kube_way(),
        );
        let say = |text: String| self.ui.print_note(&text);
        let (cluster, kube) =
            retry_throttled(|| connect_cluster(&aws, cluster, &way, &clock, &say)).await?;
        Ok(ClusterConnection {
            aws,
            kube,
            cluster,
            clock,
            caller: Default::default(),
            unread: Vec::new(),
        })
    }

    fn kube_way(&self) -> ApiServerAccess {
        let GlobalArgs {
            kubeconfig: path,
            context,
            ..
        } = &self.global;
        if path.is_none() && context.is_none() {
            return ApiServerAccess::Eks;
        }
        ApiServerAccess::Kubeconfig {
            path: path.clone(),
            context: context.clone(),
        }
    }

    /// With `-v`, each call goes to a log file. Other crates' logs stay out: they could show a credential.
    pub fn log_to_file(&self) -> Result<(), RunError> {
        let level = match self.global.verbose {
            0 => {
                disable_logging();
                return Ok(());
            }
            1 => LevelFilter::INFO,
            2.. => LevelFilter::DEBUG,
        };
        // The file is appended to: the log of the command that failed must outlive the next one.
        let path = self.global.run_dir.join("eksup.log");
        let open = std::fs::create_dir_all(&self.global.run_dir).and_then(|()| {
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(&path)
        });
        let file =
            open.map_err(|e| usage_error(format!("cannot log to {}: {e}", path.display())))?;
        let lines = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .with_writer(Arc::new(file));
        tracing_subscriber::registry()
            .with(Targets::new().with_target("eksup", level))
            .with(lines)
            .init();
        self.ui.print_note(&format!("log: {}", path.display()));
        Ok(())
    }

    /// The command as it would be given again, with its plan and the global flags that matter.
    pub fn command_again(&self, command: &str, arg: &PlanArg) -> String {
        self.command_with_flags(command, arg, Vec::new())
    }

    /// The commands of a run that one subcommand carries. `flags`: those of its own that are given again; `until`: the step
    /// after which it was to pause. A rollback that is stuck names itself, with its flags, and no smaller rollback.
    pub fn run_commands(
        &self,
        subcommand: &str,
        arg: &PlanArg,
        flags: Vec<String>,
        until: Option<&str>,
    ) -> RunCommands {
        let beyond_until = self.command_with_flags(subcommand, arg, flags.clone());
        let until = until.map(|step| ["--until".to_owned(), step.to_owned()]);
        let flags = flags.into_iter().chain(until.into_iter().flatten());
        RunCommands {
            resume: self.command_with_flags(subcommand, arg, flags.collect()),
            beyond_until,
            rollback: (subcommand != "rollback").then(|| self.command_again("rollback", arg)),
            plan: self.command_again("plan", arg),
            handback: Some(self.command_again("handback", arg)),
            approve: Some(self.command_again("approve", arg)),
        }
    }

    /// The same with flags of the subcommand; each word is quoted for a shell.
    pub fn command_with_flags(&self, command: &str, arg: &PlanArg, own: Vec<String>) -> String {
        let mut words = vec!["eksup".to_owned(), command.to_owned()];
        match (&arg.plan, &arg.cluster) {
            (Some(path), _) => words.push(path.display().to_string()),
            (None, Some(name)) => words.extend(["--cluster".to_owned(), name.clone()]),
            (None, None) => {}
        }
        let GlobalArgs {
            region,
            profile,
            kubeconfig,
            context,
            ..
        } = &self.global;
        let kubeconfig = kubeconfig.as_ref().map(|p| p.display().to_string());
        // Only flags that lead to another cluster or other rights: without them the command would be about something
        // else.
        let flags = [
            ("--region", region.as_ref()),
            ("--profile", profile.as_ref()),
            ("--kubeconfig", kubeconfig.as_ref()),
            ("--context", context.as_ref()),
        ];
        for (flag, value) in flags {
            if let Some(value) = value {
                words.extend([flag.to_owned(), value.clone()]);
            }
        }
        words.extend(own);
        quote_for_shell(&words)
    }
}

/// A command line that a shell reads as these words. A word with a zero byte, which no shell takes, stays as it is.
pub fn quote_for_shell(words: &[String]) -> String {
    let quoted = words
        .iter()
        .map(|w| shlex::try_quote(w).map_or_else(|_| w.clone(), |q| q.into_owned()));
    quoted.collect::<Vec<_>>().join(" ")
}

fn unknown_profile_error(name: &str, others: &[String]) -> RunError {
    let files = "the AWS configuration (~/.aws/config and ~/.aws/credentials, or AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE)";
    let error = usage_error(format!("there is no profile `{name}` in {files}"));
    match others {
        [] => error.with_hint("it has no profile at all"),
        others => error.with_hint(format!("there are: {}", others.join(", "))),
    }
}

/// Where the plan of a cluster is kept.
pub fn plan_path_by_name(name: &str) -> PathBuf {
    Path::new("plans").join(format!("{name}.yaml"))
}

fn find_only_plan() -> Result<PathBuf, RunError> {
    let mut found: Vec<PathBuf> = std::fs::read_dir("plans")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "yaml" || e == "yml"))
        .collect();
    found.sort();
    // With several plans none is guessed: the wrong cluster would be upgraded.
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(usage_error("name a plan, or a cluster with --cluster")
            .with_hint("there is no plan in `plans/` of the working directory")
            .with_next_command("eksup init --cluster NAME")),
        many => {
            let names: Vec<_> = many.iter().map(|p| p.display().to_string()).collect();
            Err(usage_error(format!(
                "name one of the plans: {}",
                names.join(", ")
            )))
        }
    }
}
