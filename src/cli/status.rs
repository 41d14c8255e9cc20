//! `eksup status`.

use clap::Args;
use serde_json::json;

use super::args::{Format, PlanArg};
use super::carry::{peek, route_of};
use super::context::{Context, Reached};
use super::error::CliError;
use super::gates::{self, Said};
use super::remote::InKube;
use super::standing::standing;
use super::start::no_markdown;
use crate::journal::{Held, Phase, Remote, RunState, Status};
use crate::model::ApiError;
use crate::report::text::{between, took};
use crate::route::{Route, StepSpec};

/// Show where the run stands, from the journal and the live cluster
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    plan: PlanArg,
}

/// Shows where things stand.
pub async fn run(cx: &Context, args: StatusArgs) -> Result<(), CliError> {
    no_markdown(cx.ui.format)?;
    let (cluster, region) = cx.cluster(&args.plan)?;
    let reached = cx.reach(&cluster, region.as_deref()).await?;
    let state = peek(&reached).await?;
    let lock = InKube(reached.kube.clone()).read_lock().await?;
    let route = state.as_ref().map(route_of).transpose()?;
    let live = live(&reached, route.as_ref()).await?;
    let said = match (cx.plan(&args.plan), &state, &route) {
        (Ok((_, plan)), Some(state), Some(route)) if !state.is_closed() => {
            // A plan that has been changed since is `apply`'s to refuse.
            gates::say(&plan, route, Some(state), reached.clock.now()).unwrap_or_default()
        }
        (Ok(_) | Err(_), Some(_) | None, Some(_) | None) => Said::default(),
    };
    if cx.ui.format == Format::Json {
        cx.ui.out_json(&crate::report::json::version())?;
        let state = state.as_ref().map(|s| {
            json!({
                "run": s.run, "phase": s.phase, "outcome": s.outcome, "paused": s.paused,
                "openedAt": s.opened_at, "updatedAt": s.updated_at, "planDigest": s.plan_digest,
                "steps": s.steps.iter().map(|t| json!({
                    "step": t.id, "status": t.status, "startedAt": t.started_at,
                    "endedAt": t.ended_at, "acts": t.acts, "note": t.note,
                })).collect::<Vec<_>>(),
            })
        });
        let holder = lock.map(|l| l.holder).filter(|h| !h.is_empty());
        return cx.ui.out_json(&json!({"type": "status", "cluster": cluster, "run": state, "lock": holder, "gates": said.json, "live": live}));
    }
    let mut text = String::new();
    match (&state, &route) {
        (Some(state), Some(route)) => {
            text += &told(cx, &reached, state, route, lock.as_ref(), &said.lines);
        }
        (Some(_) | None, Some(_) | None) => text += &format!("cluster {cluster} has no run\n"),
    }
    text += "live:\n";
    for line in live {
        text += &format!("  {line}\n");
    }
    cx.ui.out(&text)
}

fn told(
    cx: &Context,
    reached: &Reached,
    state: &RunState,
    route: &Route,
    lock: Option<&Held>,
    gates: &[String],
) -> String {
    let paint = cx.ui.out_paint;
    let now = reached.clock.now();
    let how = match (state.phase, state.outcome, &state.paused) {
        (_, Some(outcome), _) => outcome.as_str().replace('_', " "),
        (_, None, Some(why)) => format!("paused: {why}"),
        (Phase::Back, None, None) => "being taken back".to_owned(),
        (Phase::Forward | Phase::Closed, None, None) => "under way".to_owned(),
    };
    let mut text = format!(
        "run {} of {} {} -> {}: {}\n",
        paint.bold(&state.run),
        route.cluster,
        route.from,
        route.to,
        paint.bold(&how)
    );
    text += &format!("last record {} ago", took(between(state.updated_at, now)));
    match lock.filter(|l| !l.holder.is_empty()) {
        Some(lock) => {
            let ago = lock
                .renewed_at
                .map(|at| took(between(at, now)))
                .unwrap_or_default();
            text += &format!("; {} holds the lock, renewed {ago} ago\n\n", lock.holder);
        }
        None => text += "; nobody holds the lock\n\n",
    }
    for line in gates {
        text += &format!("{line}\n");
    }
    for (i, step) in route.steps.iter().enumerate() {
        let Some(s) = state.step(&step.id) else {
            continue;
        };
        let mark = match s.status {
            Status::Done | Status::Skipped => paint.green("done"),
            Status::Failed | Status::UndoFailed => paint.red("failed"),
            Status::Started | Status::Begun => paint.yellow("under way"),
            Status::Undoing => paint.yellow("being taken back"),
            Status::Undone => paint.dim("taken back"),
            Status::Pending => paint.dim("to do"),
        };
        let note = s
            .note
            .as_ref()
            .map(|n| format!(", {n}"))
            .unwrap_or_default();
        text += &format!("{:>3}. {}: {mark}{note}\n", i + 1, step.title);
    }
    text.push('\n');
    for line in standing(state, route, None) {
        text += &format!("{line}\n");
    }
    text
}

/// What the cluster itself says now.
async fn live(reached: &Reached, route: Option<&Route>) -> Result<Vec<String>, ApiError> {
    let name = &reached.cluster.name;
    let mut lines = vec![format!(
        "control plane: {} ({})",
        reached.cluster.version, reached.cluster.status
    )];
    let nodes = reached.kube.nodes().await?;
    for group in reached.aws.list_nodegroups(name).await? {
        let group = reached.aws.describe_nodegroup(name, &group).await?;
        let own: Vec<_> = nodes
            .iter()
            .filter(|n| n.nodegroup() == Some(&group.name))
            .collect();
        let ready = own.iter().filter(|n| n.is_ready()).count();
        let closed = own.iter().filter(|n| n.unschedulable).count();
        let version = group
            .version
            .map(|v| v.to_string())
            .unwrap_or_else(|| "custom".to_owned());
        lines.push(format!(
            "node group {}: {version}, {}, {ready} of {} nodes ready, {closed} cordoned",
            group.name,
            group.status,
            own.len()
        ));
    }
    let mut rules: Vec<String> = Vec::new();
    for step in route.iter().flat_map(|r| &r.steps) {
        if let StepSpec::Shift { shift, .. } = &step.spec {
            rules.extend(
                shift
                    .rules
                    .iter()
                    .filter(|r| !rules.contains(r))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
    }
    if !rules.is_empty() {
        for rule in reached.aws.rules_by_arn(&rules).await? {
            let weights: Vec<String> = rule
                .forward
                .iter()
                .map(|f| {
                    format!(
                        "{} {}",
                        f.arn.rsplit('/').nth(1).unwrap_or(&f.arn),
                        f.weight
                    )
                })
                .collect();
            lines.push(format!(
                "rule {} {}: {}",
                rule.priority,
                rule.conditions.join(" "),
                weights.join(", ")
            ));
        }
    }
    Ok(lines)
}
