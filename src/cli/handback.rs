//! `eksup handback`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::args::{OutputFormat, PlanArg};
use super::context::CommandContext;
use crate::handback::{
    HandbackDocument, HandbackFacts, HandbackOptions, TerraformAddress, build_handback,
};
use crate::journal::RunPhase;
use crate::model::group_owner::OwningTool;
use crate::report::json::version_line;
use crate::run::atomic_file::write_file;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::error::{RunError, usage_error};
use crate::run::handback_facts::read_handback_facts;
use crate::run::stored_run::{check_own_run, read_run_state, stored_route};

/// Print what the tools that own the node groups have to be told, so that their next plan is empty
///
/// It reads the last run from the cluster and the groups as they are now, and changes nothing. For Terraform it prints import,
/// resource and removed blocks, for eksctl a part of its ClusterConfig, for CloudFormation and the CDK an import, for Pulumi an
/// import and the resource. A value that could not be read is named as unknown.
#[derive(Debug, Args)]
pub struct HandbackArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// The tool that all groups belong to; without it, the tools that the tags of each group name
    #[arg(long, value_enum, value_name = "TOOL")]
    tool: Option<ToolArg>,
    /// Where Terraform has blue: `module.eks`, `module.eks.module.eks_managed_node_group["KEY"]` or
    /// `aws_eks_node_group.NAME`; with `BLUE=` before it, of this group only
    #[arg(long = "address", value_name = "[BLUE=]ADDRESS")]
    addresses: Vec<String>,
    /// Also write the files into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A tool that owns node groups, as it can be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ToolArg {
    Terraform,
    Eksctl,
    Cloudformation,
    Pulumi,
    Cdk,
}

impl From<ToolArg> for OwningTool {
    fn from(tool: ToolArg) -> Self {
        match tool {
            ToolArg::Terraform => Self::Terraform,
            ToolArg::Eksctl => Self::Eksctl,
            ToolArg::Cloudformation => Self::Cloudformation,
            ToolArg::Pulumi => Self::Pulumi,
            ToolArg::Cdk => Self::Cdk,
        }
    }
}

/// Prints what to tell the tools, and writes it into files where a folder is given.
pub async fn print_handback(cx: &CommandContext, args: HandbackArgs) -> Result<(), RunError> {
    let options = read_options(&args)?;
    let (cluster, region) = cx.cluster_and_region(&args.plan)?;
    let reached = cx.connect_cluster(&cluster, region.as_deref()).await?;
    let Some(state) = read_run_state(&reached).await? else {
        return print_nothing(cx, &reached);
    };
    check_own_run(&state, &reached.cluster.arn)?;
    let route = stored_route(&state)?;
    let facts = read_handback_facts(&reached, &state, &route).await?;
    check_named_groups(&facts, &options)?;
    let mut document = build_handback(&facts, &options);
    if state.phase != RunPhase::Closed {
        let note = format!(
            "Run {} is not finished: this is how things are now, and the next step may change them. Tell the tools when it is done.",
            state.run
        );
        document.notes.insert(0, note);
    }
    print_document(cx, &reached, &document)?;
    write_files(cx, &args, &document)
}

/// What was given on the command line, judged before anything is asked of AWS.
fn read_options(args: &HandbackArgs) -> Result<HandbackOptions, RunError> {
    let mut options = HandbackOptions {
        tool: args.tool.map(OwningTool::from),
        ..HandbackOptions::default()
    };
    for given in &args.addresses {
        // An equals sign may stand in the key of an address too; no name of a group has a dot or a bracket.
        let named = given
            .split_once('=')
            .filter(|(blue, _)| !blue.contains(['.', '[', '"']));
        let text = named.map_or(given.as_str(), |(_, address)| address);
        let address = TerraformAddress::parse(text).map_err(usage_error)?;
        let twice = match named {
            Some((blue, _)) => options.addresses.insert(blue.to_owned(), address).is_some(),
            None => options.address.replace(address).is_some(),
        };
        if twice {
            return Err(usage_error(format!(
                "`--address {given}` gives an address a second time; write `--address BLUE=ADDRESS` for each group"
            )));
        }
    }
    Ok(options)
}

/// Refuses an address of a group that the run did not replace, and one address for several groups.
fn check_named_groups(facts: &HandbackFacts, options: &HandbackOptions) -> Result<(), RunError> {
    let blues = || facts.groups.iter().map(|g| g.moved.blue.as_str());
    let replaced = || blues().collect::<Vec<_>>().join(", ");
    if let Some(other) = options
        .addresses
        .keys()
        .find(|name| blues().all(|b| b != **name))
    {
        return Err(usage_error(format!(
            "`--address {other}=...` names no group that the last run replaced"
        ))
        .with_hint(format!("it replaced: {}", replaced())));
    }
    // A module holds many groups; a resource, or an entry of the module, is one.
    let of_one = match &options.address {
        Some(TerraformAddress::EksModule { key, .. }) => key.is_some(),
        Some(TerraformAddress::Resource { .. }) => true,
        None => false,
    };
    let without = blues().filter(|b| !options.addresses.contains_key(*b));
    if of_one && without.count() > 1 {
        return Err(usage_error(
            "one address cannot be that of several groups; write `--address BLUE=ADDRESS` for each",
        )
        .with_hint(format!("the run replaced: {}", replaced())));
    }
    Ok(())
}

/// A cluster without a run has nothing to hand back.
fn print_nothing(cx: &CommandContext, reached: &ClusterConnection) -> Result<(), RunError> {
    let document = HandbackDocument {
        cluster: reached.cluster.name.clone(),
        run: String::new(),
        notes: Vec::new(),
        tools: Vec::new(),
        node_pools: None,
    };
    match cx.ui.format {
        OutputFormat::Json => print_document(cx, reached, &document),
        OutputFormat::Text | OutputFormat::Markdown => cx.ui.write_result(&format!(
            "cluster {} has no run: there is nothing to hand back\n",
            reached.cluster.name
        )),
    }
}

fn print_document(
    cx: &CommandContext,
    reached: &ClusterConnection,
    document: &HandbackDocument,
) -> Result<(), RunError> {
    match cx.ui.format {
        OutputFormat::Text => cx.ui.write_result(&document.render_text()),
        OutputFormat::Markdown => cx.ui.write_result(&document.render_markdown()),
        OutputFormat::Json => {
            cx.ui.write_json_line(&version_line())?;
            cx.ui.write_json_line(&json!({
                "type": "handback",
                "at": reached.clock.now(),
                "cluster": document.cluster,
                "run": (!document.run.is_empty()).then_some(&document.run),
                "notes": document.notes,
                "tools": document.tools,
                "nodePools": document.node_pools,
            }))
        }
    }
}

fn write_files(
    cx: &CommandContext,
    args: &HandbackArgs,
    document: &HandbackDocument,
) -> Result<(), RunError> {
    let Some(folder) = &args.out else {
        return Ok(());
    };
    for file in document.files() {
        let path = folder.join(&file.name);
        write_file(&path, &file.text)?;
        cx.ui.print_note(&format!("wrote {}", path.display()));
    }
    Ok(())
}
