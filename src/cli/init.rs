//! `eksup init`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::context::{CommandContext, plan_path_by_name};
use crate::model::{Inventory, Minor};
use crate::plan;
use crate::run::error::{RunError, RunErrorKind, usage_error};

/// Write a commented plan from the live cluster
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The version to upgrade to; the default is the newest that EKS installs by default
    #[arg(long, value_name = "X.Y")]
    to: Option<Minor>,
    /// The file; the default is `plans/NAME.yaml`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
}

/// Writes a plan.
pub async fn init_plan(cx: &CommandContext, args: InitArgs) -> Result<(), RunError> {
    let path = args
        .output
        .clone()
        .unwrap_or_else(|| plan_path_by_name(&args.cluster));
    if path.exists() && !args.force {
        return Err(usage_error(format!("{} is there already", path.display()))
            .with_hint("use --force to overwrite it, or -o to write another file"));
    }
    let reached = cx.connect_cluster(&args.cluster, None).await?;
    let inventory = reached.read_inventory(args.to).await?;
    let to = match args.to {
        Some(to) => to,
        None => default_target(&inventory)?,
    };
    let text = render_plan(&inventory, to);
    // What is written must be a plan; anything else is a mistake of this program.
    plan::parse_plan(&path.display().to_string(), &text)?;
    write_plan_file(&path, &text)?;
    cx.ui.print_note(&format!(
        "wrote {}; review it, then run: eksup plan {}",
        path.display(),
        path.display()
    ));
    Ok(())
}

fn write_plan_file(path: &Path, text: &str) -> Result<(), RunError> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
    folder
        .map_or(Ok(()), std::fs::create_dir_all)
        .and_then(|()| std::fs::write(path, text))
        .map_err(|e| {
            RunError::new(
                RunErrorKind::Unexpected,
                format!("cannot write {}: {e}", path.display()),
            )
        })
}

/// EKS's own default version, when it is newer; else the next one it offers.
fn default_target(inventory: &Inventory) -> Result<Minor, RunError> {
    let now = inventory.cluster.version;
    let newer = || {
        inventory
            .cluster_versions
            .iter()
            .filter(|v| v.version > now)
    };
    let chosen = newer().find(|v| v.default).map(|v| v.version);
    chosen
        .or_else(|| newer().map(|v| v.version).min())
        .ok_or_else(|| {
            RunError::new(
                RunErrorKind::Usage,
                format!("EKS offers no version newer than the cluster's {now}"),
            )
            .with_hint("name a version with --to")
        })
}

/// The plan's text.
pub fn render_plan(inventory: &Inventory, to: Minor) -> String {
    let cluster = &inventory.cluster;
    let mut out = format!(
        "# The upgrade of cluster {name}. Everything that is not written here has a careful default; the lines that\n\
         # begin with `#` show some. `eksup plan` shows what would be done, `eksup rehearse` simulates it.\n\
         apiVersion: eksup.dev/v1\nkind: UpgradePlan\n\ncluster: {name}\nregion: {region}\n\
         # It is at {from} now; it is upgraded one minor at a time.\nto: \"{to}\"\n\n\
         # blue-green: a whole new group beside the old one. canary: one node first. rolling: one node at a time.\n\
         # recreate: blue is emptied before green is created; its workloads are down meanwhile.\nstrategy: blue-green\n\n\
         controlPlane:\n  # Watch after each hop, with nodes still on the old version.\n  bake: 10m\n\n",
        name = quote_yaml(&cluster.name),
        region = inventory.region,
        from = cluster.version,
    );
    // Writing to a String cannot fail.
    if !inventory.addons.is_empty() {
        out += "addons:\n  # default, latest, or minimal: only the updates that compatibility requires.\n  policy: default\n  # pins:\n";
        for addon in &inventory.addons {
            let _ = writeln!(out, "  #   {}: {}", addon.name, addon.version);
        }
        out.push('\n');
    }
    if !inventory.nodegroups.is_empty() {
        out += "# The node groups to replace; a group that is not named here stays as it is.\nnodeGroups:\n";
        for group in &inventory.nodegroups {
            let nodes = inventory.nodes_of(&group.name).count();
            let kind = group.ami_type.as_deref().unwrap_or("custom");
            let version = group
                .version
                .map_or_else(|| "?".to_owned(), |v| v.to_string());
            let _ = writeln!(
                out,
                "  # {nodes} nodes, {version}, {kind}, {}",
                group.instance_types.join(" ")
            );
            let _ = writeln!(out, "  - blue: {}", quote_yaml(&group.name));
            out += "    # green: the name of the new group; by default blue's name with green for blue, or with the version\n";
            out += "    # capacity: {surge: 2} limits the cost; full is the default\n";
        }
        out.push('\n');
    }
    out += "drain:\n  parallel: 1\n  podDeadline: 15m\n  nodeDeadline: 1h\n  # stop, skip or delete.\n  onDeadline: stop\n";
    out += "  # What may be lost, by workload: pods without a controller, data in an emptyDir or in a directory of the node.\n";
    out += "  # barePods: {evict: [\"pod shop/tool\"]}\n  # emptyDir: {evict: [\"Deployment shop/cache\"]}\n  # hostPath: {evict: [\"shop/*\"]}\n  # One replica under a budget that never allows its eviction: block, surge, evict.\n  # singleReplicas: surge\n  # A budget that an operator controls and that allows no eviction until the operator has moved its pod: block, wait.\n  # operatorBudgets: wait\n\n";
    out += &render_traffic(inventory);
    out += "retire:\n  # How long blue stays after it is empty.\n  soak: 1h\n  # delete or keep-at-zero.\n  then: delete\n\n";
    out += "# When something new may begin; outside of the windows the run pauses, and the same command continues it.\n";
    out += "# windows:\n#   - {days: [mon, tue], from: \"22:00\", to: \"04:00\", timeZone: Europe/Berlin}\n\n";
    out += "# Steps, or kinds of steps, that need `eksup approve` before they begin.\n# approvals:\n#   before: [drain, retire]\n\n";
    out += "# notify:\n#   - webhook: {url: \"https://example.com/hook\"}\n#   - sns: {topic: \"arn:aws:sns:eu-central-1:123456789012:upgrades\"}\n";
    out
}

/// Pairs of target groups that are named blue and green.
fn render_traffic(inventory: &Inventory) -> String {
    let mut out =
        "traffic:\n  # Percent on green.\n  steps: [10, 50, 100]\n  bake: 5m\n".to_owned();
    let pairs: Vec<(&str, String)> = inventory
        .target_groups
        .iter()
        .filter(|t| t.name.contains("blue"))
        .map(|t| (t.name.as_str(), t.name.replace("blue", "green")))
        .filter(|(_, green)| inventory.target_groups.iter().any(|t| t.name == *green))
        .collect();
    if pairs.is_empty() {
        out += "  # Without routes, green joins blue's own target groups.\n";
        out += "  # routes:\n  #   - {rule: every, blue: apps-blue-tg, green: apps-green-tg}\n\n";
        return out;
    }
    out += "  # Target groups that are named blue and green, in every rule that forwards to blue.\n  routes:\n";
    for (blue, green) in pairs {
        let _ = writeln!(
            out,
            "    - {{rule: every, blue: {}, green: {}}}",
            quote_yaml(blue),
            quote_yaml(&green)
        );
    }
    out + "\n"
}

/// A name as YAML reads it back: quoted where it could be taken for something else.
fn quote_yaml(name: &str) -> String {
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && !matches!(
            name,
            "true" | "false" | "null" | "yes" | "no" | "on" | "off" | "y" | "n"
        );
    if plain {
        name.to_owned()
    } else {
        format!("\"{name}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::twin::scenario;

    #[test]
    fn what_init_writes_is_a_plan_for_the_cluster_it_saw() {
        let mut inventory = scenario::expense_dev().inventory;
        let text = render_plan(&inventory, Minor::new(29));
        let plan = plan::parse_plan("plan.yaml", &text)
            .unwrap_or_else(|e| panic!("{:?}\n{text}", e.problems));
        assert_eq!(
            (plan.cluster.as_str(), plan.to),
            ("expense-dev", Minor::new(29))
        );
        assert_eq!(plan.node_groups.len(), inventory.nodegroups.len());
        assert_eq!(plan.traffic.routes.len(), 1);
        // Everything that is written is a default, but for what was found.
        let mut least = plan::Plan::with_defaults("expense-dev", Minor::new(29));
        least.region = plan.region.clone();
        least.node_groups = plan.node_groups.clone();
        least.traffic.routes = plan.traffic.routes.clone();
        assert_eq!(plan, least);
        // What is only shown is right too, once its mark is taken off.
        let shown: String = text
            .lines()
            .skip_while(|l| !l.starts_with("# windows:"))
            .filter(|l| {
                l.starts_with("# windows") || l.starts_with("# approvals") || l.starts_with("#   ")
            })
            .map(|l| format!("{}\n", l.trim_start_matches("# ").replacen("#   ", "  ", 1)))
            .filter(|l| !l.contains("webhook") && !l.contains("sns"))
            .collect();
        let with = plan::parse_plan("p", &format!("cluster: c\nto: 1.30\n{shown}"))
            .unwrap_or_else(|e| panic!("{:?}\n{shown}", e.problems));
        assert_eq!(with.windows.0.len(), 1, "{shown}");
        assert_eq!(with.approvals.before, ["drain", "retire"]);
        inventory.cluster.name = "123".into();
        let text = super::render_plan(&inventory, Minor::new(29));
        assert_eq!(plan::parse_plan("plan.yaml", &text).unwrap().cluster, "123");
    }
}
