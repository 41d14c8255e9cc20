//! Arguments that several subcommands take.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::run::error::{RunError, usage_error};

/// What every subcommand takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// AWS region; overrides those of the plan and of the environment
    #[arg(long, global = true, value_name = "REGION")]
    pub region: Option<String>,
    /// AWS profile
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
    /// Connect to Kubernetes with this kubeconfig instead of with EKS's endpoint; it must be of the same cluster
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context in the kubeconfig; without --kubeconfig, the one of KUBECONFIG or of the home folder
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Format of results on stdout
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: FormatArg,
    /// Use of colours; `auto` depends on the terminal, NO_COLOR and CI
    #[arg(long, global = true, value_enum, default_value_t)]
    pub color: ColorChoice,
    /// Print lines instead of progress bars
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// Folder for the events and records of runs, with one folder per run
    #[arg(long, global = true, value_name = "DIR", default_value = "eksup-runs")]
    pub run_dir: PathBuf,
    /// Log every call to AWS and Kubernetes with its response code to `eksup.log` in the run folder; given twice, also when it is sent
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// How results are written, as it can be asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    #[default]
    Text,
    Json,
    Markdown,
    /// Only for `policy`.
    Terraform,
    /// Only for `policy`.
    Rbac,
}

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputFormat {
    Text,
    Json,
    Markdown,
}

impl FormatArg {
    /// The general form; `None` for one that only `policy` has.
    pub fn general_format(self) -> Option<OutputFormat> {
        match self {
            Self::Text => Some(OutputFormat::Text),
            Self::Json => Some(OutputFormat::Json),
            Self::Markdown => Some(OutputFormat::Markdown),
            Self::Terraform | Self::Rbac => None,
        }
    }
}

/// Whether there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

/// Which plan.
#[derive(Clone, Debug, Default, Args)]
pub struct PlanArg {
    /// The plan file
    #[arg(value_name = "PLAN", conflicts_with = "cluster")]
    pub plan: Option<PathBuf>,
    /// Use `plans/NAME.yaml` of the working directory
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
}

/// For results that have no Markdown of their own.
pub fn refuse_markdown(format: OutputFormat) -> Result<(), RunError> {
    match format {
        OutputFormat::Markdown => Err(usage_error(
            "this result has no Markdown form; use --format text or json",
        )),
        OutputFormat::Text | OutputFormat::Json => Ok(()),
    }
}
