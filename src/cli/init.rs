//! `eksup init`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;

use super::args::PlanArg;
use super::context::{CommandContext, plan_path_by_name};
use crate::model::elb::TargetGroup;
use crate::model::kube::Node;
use crate::model::node_pool::pool_of;
use crate::model::{Inventory, Minor};
use crate::plan;
use crate::route;
use crate::run::atomic_file::write_file;
use crate::run::error::{RunError, RunErrorKind, usage_error};

/// Write a commented plan from the live cluster
#[derive(Debug, Args)]
pub struct InitArgs {
    /// The cluster
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The version to go to; without it, the newest that EKS installs by default
    #[arg(long, value_name = "X.Y")]
    to: Option<Minor>,
    /// The file; without it, `plans/NAME.yaml`
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write over a file that is there
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
            .with_hint("--force writes over it, -o writes another"));
    }
    // A cluster that is not there is not there for the same command either.
    let reached = cx
        .connect_cluster(&args.cluster, None)
        .await
        .map_err(|error| {
            if error.kind == RunErrorKind::Mismatch {
                error.without_next_command()
            } else {
                error
            }
        })?;
    let inventory = reached.read_inventory(args.to).await?;
    // A version that was named is checked against what EKS offers; otherwise EKS's default is taken, if it is newer.
    let to = match args.to {
        Some(to) => check_target(&inventory, to)?,
        None => default_target(&inventory)?,
    };
    let text = render_plan(&inventory, to);
    // What is written must be a plan; anything else is a mistake of this program.
    plan::parse_plan(&path.display().to_string(), &text)?;
    write_file(&path, &text)?;
    // Several hops take hours each, so their number is told before the plan is read.
    let hops = list_hops(inventory.cluster.version, to);
    cx.ui.print_note(&match hops.as_slice() {
        [_] => format!("the upgrade has one hop, to {to}"),
        hops => format!(
            "the upgrade has {} hops: {}",
            hops.len(),
            hops.iter()
                .map(Minor::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    });
    cx.ui
        .print_note(&format!("wrote {}; review it", path.display()));
    let arg = PlanArg {
        plan: Some(path),
        cluster: None,
    };
    let next = cx.command_again("plan", &arg);
    cx.ui.print_note(&format!("next: {next}"));
    Ok(())
}

/// The minors that the control plane passes, the target included.
fn list_hops(from: Minor, to: Minor) -> Vec<Minor> {
    std::iter::successors(Some(from.next()), |minor| Some(minor.next()))
        .take_while(|minor| *minor <= to)
        .collect()
}

/// A target that was asked for; refused where no upgrade leads to it.
fn check_target(inventory: &Inventory, to: Minor) -> Result<Minor, RunError> {
    let now = inventory.cluster.version;
    if to <= now {
        return Err(usage_error(format!(
            "the cluster is at {now}, so there is no upgrade to {to}"
        )));
    }
    let offered = &inventory.cluster_versions;
    let is_offered = |minor: &Minor| offered.iter().any(|v| v.version == *minor);
    // Where EKS did not say what it offers, `plan` judges the target.
    if offered.is_empty() || list_hops(now, to).iter().all(is_offered) {
        return Ok(to);
    }
    let newer = offered.iter().map(|v| v.version).filter(|v| *v > now);
    let newer: BTreeSet<Minor> = newer.collect();
    let newer: Vec<String> = newer.iter().map(Minor::to_string).collect();
    Err(usage_error(format!("EKS does not offer {to}"))
        .with_hint(format!("it offers {}", newer.join(", "))))
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
                format!("EKS offers nothing newer than the cluster's {now}"),
            )
            .with_hint("name a version with --to")
        })
}

/// The plan's text: what was found in the cluster, in the template that the keys of a plan give.
pub fn render_plan(inventory: &Inventory, to: Minor) -> String {
    let cluster = &inventory.cluster;
    let mut template = plan::PlanTemplate::default();
    // What must be in a plan is written out, with what the cluster has.
    template.set_value("cluster", quote_yaml(&cluster.name));
    template.set_value("region", &inventory.region);
    template.set_value("to", format!("\"{to}\""));
    template.add_note("to", format!("The cluster is at {} now.", cluster.version));
    // Pins are shown as a comment: a plan that pins what runs would hold the add-ons back.
    if !inventory.addons.is_empty() {
        let addons = inventory.addons.iter();
        let pins = addons.map(|addon| format!("{}: {}", addon.name, addon.version));
        let pins: Vec<String> = pins.collect();
        template.show_example("addons.pins", format!("{{{}}}", pins.join(", ")));
    }
    // Each group with what a person recognizes it by.
    if inventory.managed_groups().next().is_some() {
        let groups = inventory.managed_groups().map(|group| {
            let nodes = inventory.nodes_of(&group.name).count();
            let kind = group.ami_type.as_deref().unwrap_or("custom");
            let version = group
                .version
                .map_or_else(|| "?".to_owned(), |v| v.to_string());
            let types = group.instance_types.join(" ");
            let note = format!("{nodes} nodes, {version}, {kind}, {types}");
            (quote_yaml(&group.name), note.trim_end().to_owned())
        });
        template.set_node_groups("nodeGroups", &groups.collect::<Vec<_>>());
    }
    if let Some(groups) = render_self_managed(inventory) {
        template.set_value("autoScalingGroups", groups);
    }
    if let Some(pools) = render_node_pools(inventory) {
        template.set_value("karpenter", pools);
    }
    // A guess from names, and so with a note that says what was guessed.
    if let Some(routes) = render_routes(inventory) {
        template.set_value("traffic.routes", routes);
        template.add_note(
            "traffic.routes",
            if inventory.nodegroups.len() > 1 {
                "These are named blue and green; every rule that forwards to blue is meant. A route that belongs to a group (`nodeGroup`) is shifted when that group is emptied."
            } else {
                "These are named blue and green; every rule that forwards to blue is meant."
            },
        );
    }
    format!(
        "# What eksup is to do with cluster {}. Everything that is not written here has a careful default; the\n\
         # lines that begin with `#` show some. `eksup plan` shows what comes of it, `eksup rehearse` tries it out.\n{}",
        quote_yaml(&cluster.name),
        template.render()
    )
}

/// Pairs of target groups that are named blue and green, if there are any. Where the cluster has several node groups, each
/// pair belongs to the one that serves it alone.
fn render_routes(inventory: &Inventory) -> Option<String> {
    let served = route::targets_by_group(inventory);
    let only_group = |pair: [&TargetGroup; 2]| {
        let serves = |targets: &BTreeSet<String>| pair.iter().any(|t| targets.contains(&t.arn));
        let mut groups = served.iter().filter(|(_, targets)| serves(targets));
        let (first, others) = (groups.next(), groups.next());
        let (name, _) = first.filter(|_| others.is_none())?;
        (inventory.nodegroups.len() > 1).then_some(name)
    };
    let named = |name: &str| inventory.target_groups.iter().find(|t| t.name == name);
    let blues = inventory.target_groups.iter();
    let blues = blues.filter(|blue| blue.name.contains("blue"));
    let pairs = blues.filter_map(|blue| {
        let green = named(&blue.name.replace("blue", "green"))?;
        // What a controller fills is its own: a route through it is refused.
        if [blue, green].map(|t| route::is_controlled(inventory, t)) != [false, false] {
            return None;
        }
        let group = only_group([blue, green]);
        let (blue, green) = (quote_yaml(&blue.name), quote_yaml(&green.name));
        let tie = group.map(|name| format!(", nodeGroup: {}", quote_yaml(name)));
        let tie = tie.unwrap_or_default();
        Some(format!(
            "\n    - {{rule: every, blue: {blue}, green: {green}{tie}}}"
        ))
    });
    let pairs: Vec<String> = pairs.collect();
    (!pairs.is_empty()).then(|| pairs.concat())
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

/// The self-managed groups; what has an image of its own gets a place for the new one.
fn render_self_managed(inventory: &Inventory) -> Option<String> {
    let own = inventory
        .nodegroups
        .iter()
        .filter(|g| !g.source.is_managed());
    let mut list = String::new();
    for group in own {
        let nodes = inventory.nodes_of(&group.name).count();
        let kubelet = crate::route::oldest_kubelet(inventory, group);
        list += &format!(
            "\n  # {nodes} nodes, {kubelet}\n  - blue: {}\n",
            quote_yaml(&group.name)
        );
        list += match inventory.image_line_of(&group.name) {
            Some(_) => "    ami: auto",
            None => {
                "    # Its image is none that AWS makes: write one with the target's kubelet.\n    ami: auto"
            }
        };
    }
    (!list.is_empty()).then_some(list)
}

/// Karpenter's NodePools, each by drift; one that a tool owns is told.
fn render_node_pools(inventory: &Inventory) -> Option<String> {
    let pools = inventory.node_pools().filter(|p| !p.is_auto_mode());
    let mut list = String::new();
    for pool in pools {
        let of_pool = |n: &&Node| pool_of(n) == Some(&pool.name);
        let nodes = inventory.nodes.iter().filter(of_pool).count();
        let owner = match pool.owning_tool() {
            Some(tool) => format!(", {tool} owns it: see `changeOwned`"),
            None => String::new(),
        };
        list += &format!(
            "\n  # {nodes} nodes{owner}\n  - nodePool: {}\n    strategy: drift",
            quote_yaml(&pool.name)
        );
    }
    (!list.is_empty()).then_some(list)
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
        let shown: Vec<String> = text.lines().map(uncomment_key).collect();
        let with = plan::parse_plan("p", &shown.join("\n"))
            .unwrap_or_else(|e| panic!("{:?}\n{}", e.problems, shown.join("\n")));
        assert_eq!(with.windows.0.len(), 1);
        assert_eq!(with.approvals.before, ["drain", "retire"]);
        assert_eq!(with.addons.pins.len(), inventory.addons.len());
        assert_eq!(with.node_groups[0].green.as_deref(), Some("apps-green"));
        inventory.cluster.name = "123".into();
        let text = super::render_plan(&inventory, Minor::new(29));
        assert_eq!(plan::parse_plan("plan.yaml", &text).unwrap().cluster, "123");
    }

    /// A line without its mark, where it is a key and its value.
    fn uncomment_key(line: &str) -> String {
        let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
        match rest.strip_prefix("# ") {
            Some(key) if key.split(": ").next().is_some_and(is_key_name) && key.contains(": ") => {
                format!("{indent}{key}")
            }
            _ => line.to_owned(),
        }
    }

    fn is_key_name(text: &str) -> bool {
        text.starts_with(|c: char| c.is_ascii_lowercase())
            && text.bytes().all(|b| b.is_ascii_alphanumeric())
    }

    #[test]
    fn of_several_groups_each_route_belongs_to_the_one_that_serves_it() {
        let inventory = scenario::find_scenario("multi-group").unwrap().inventory;
        let text = render_plan(&inventory, Minor::new(28));
        let plan = plan::parse_plan("plan.yaml", &text)
            .unwrap_or_else(|e| panic!("{:?}\n{text}", e.problems));
        assert_eq!(plan.node_groups.len(), 6);
        let routes = plan.traffic.routes.iter();
        let ties = routes.map(|r| (r.blue.as_str(), r.node_group.as_deref().unwrap()));
        let mut ties: Vec<(&str, &str)> = ties.collect();
        ties.sort_unstable();
        let wanted = [
            ("admin-blue-tg", "admin-blue"),
            ("expense-blue-tg", "expense-blue"),
            ("orders-blue-tg", "api-blue"),
            ("users-blue-tg", "api-blue"),
        ];
        assert_eq!(ties, wanted);
    }

    #[test]
    fn what_init_writes_is_reviewed_as_a_whole() {
        let inventory = scenario::expense_dev().inventory;
        insta::assert_snapshot!(render_plan(&inventory, Minor::new(29)));
    }
}
