//! `eksup apply`.

use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::args::{OutputFormat, PlanArg};
use super::context::{ClusterConnection, CommandContext};
use super::dispatch::usage_error;
use super::error::{CliError, CliErrorKind};
use super::execute::{RunContext, RunRequest, execute_run, read_run_state, stored_route};
use super::findings::{count_blockers, not_ready_error};
use super::plan::show_route;
use super::plan_gates::{self, GateSummary};
use super::route_view::DoneSteps;
use super::saved_plan::SavedPlan;
use super::session::{check_same_run, check_step_id};
use super::signals::unless_stopped;
use super::ui::Ui;
use super::{credential_expiry, permissions, route_view, signals};
use crate::engine::stop;
use crate::journal::RunState;
use crate::model::{Inventory, Timestamp};
use crate::plan::{self, Plan, plan_digest};
use crate::ready::{self, Finding};
use crate::route::Route;

/// Run or resume the upgrade
///
/// The same command goes on with a run that was stopped, here or on another machine.
#[derive(Debug, Args)]
pub struct ApplyArgs {
    #[command(flatten)]
    plan: PlanArg,
    /// Do not ask; needed without a terminal
    #[arg(long)]
    auto_approve: bool,
    /// Pause after this step
    #[arg(long, value_name = "STEP")]
    until: Option<String>,
    /// Do not hold the run against the Ready pods that this workload had when the run began, because it was made smaller
    /// on purpose: kind, namespace and name as the message gives them, such as "StrimziPodSet shop/kafka"
    #[arg(long, value_name = "WORKLOAD")]
    accept_short: Vec<String>,
}

/// What is to be applied.
pub struct PlanInput {
    pub plan: Plan,
    pub saved: Option<SavedPlan>,
}

/// Runs or resumes the upgrade.
pub async fn apply_plan(cx: &CommandContext, args: ApplyArgs) -> Result<(), CliError> {
    let input = read_plan_input(cx, &args.plan)?;
    if !args.auto_approve && !cx.ui.env.stdin_terminal {
        return Err(
            usage_error("without a terminal nobody can be asked: give --auto-approve")
                .with_hint("`eksup plan` shows first what would be done")
                .with_next_command(format!(
                    "{} --auto-approve",
                    cx.command_again("apply", &args.plan)
                )),
        );
    }
    let mut resume = cx.command_again("apply", &args.plan);
    if args.auto_approve {
        resume += " --auto-approve";
    }
    let again = match &args.until {
        Some(step) => format!("{resume} --until {step}"),
        None => resume.clone(),
    };
    // From here on a signal is heard at any moment, and nothing is changed before the run is open.
    let (asker, stop) = stop::stop_channel();
    signals::listen_for_signals(asker, cx.ui.clone())?;
    let ready = async {
        let (cluster, region) = (&input.plan.cluster, input.plan.region.as_deref());
        let connection = cx.connect_cluster(cluster, region).await?;
        let until = args.until.as_deref();
        let ahead = prepare_route(cx, &connection, &input, until, &again, Some(&cx.ui)).await?;
        let Some(ahead) = ahead else { return Ok(None) };
        if let Some(end) = credential_expiry::read_session_end(&connection).await
            && let Some(note) =
                credential_expiry::expiry_warning(&end, ahead.estimate, connection.clock.now())
        {
            cx.ui.print_note(&note);
        }
        let yes = args.auto_approve || cx.ui.confirm("Do this?").await?;
        Ok::<_, CliError>(Some((connection, ahead, yes)))
    };
    let Some((connection, route, yes)) = unless_stopped(&stop, ready).await? else {
        return Ok(());
    };
    if !yes {
        return Err(
            CliError::new(CliErrorKind::Paused, "not confirmed; nothing was done")
                .with_next_command(resume),
        );
    }
    let context = RunContext {
        ui: &cx.ui,
        reached: &connection,
        stop,
        holder: make_holder_identity(),
        resume_command: resume,
        record_dir: Some(cx.global.run_dir.clone()),
        accept_short: args.accept_short.clone(),
        live: true,
    };
    let digest = plan_digest(&input.plan);
    let request = RunRequest::Apply {
        plan: &input.plan,
        digest,
        route: route.new_route,
        until: args.until,
    };
    let view = execute_run(&context, request).await?;
    let folder = cx.global.run_dir.join(&view.run);
    cx.ui.print_note(&format!(
        "report: eksup report --run {} -o report.html",
        folder.display()
    ));
    Ok(())
}

/// What is ahead: a new route, or (none) the rest of an open run's.
pub struct PendingRoute {
    pub new_route: Option<Route>,
    /// How long it is expected to take.
    pub estimate: Duration,
}

/// What a look at the cluster found, before anything is done.
pub struct Assessment {
    /// The run that is open.
    pub open_run: Option<RunState>,
    pub route: Option<Route>,
    pub findings: Vec<Finding>,
}

/// The plan, from its file or from a saved one.
pub fn read_plan_input(cx: &CommandContext, arg: &PlanArg) -> Result<PlanInput, CliError> {
    let path = cx.plan_path(arg)?;
    match SavedPlan::read_file(&path)? {
        Some(saved) => {
            let plan = plan::parse_plan(&saved.plan_name, &saved.plan_text)?;
            Ok(PlanInput {
                plan,
                saved: Some(saved),
            })
        }
        None => Ok(PlanInput {
            plan: load_plan_file(&path)?,
            saved: None,
        }),
    }
}

fn load_plan_file(path: &Path) -> Result<Plan, CliError> {
    Ok(plan::load_plan(path)?)
}

/// Looks at the cluster: an open run of this plan, or the route of a new one and what speaks against it. With `live`,
/// EKS is asked to judge its insights again first; a rehearsal takes them as its snapshot has them.
pub async fn assess_cluster(
    connection: &ClusterConnection,
    input: &PlanInput,
    live: Option<&Ui>,
) -> Result<Assessment, CliError> {
    let nothing = Assessment {
        open_run: None,
        route: None,
        findings: Vec::new(),
    };
    if let Some(state) = read_run_state(connection).await?.filter(|s| !s.is_closed()) {
        check_same_run(&state, &input.plan, &connection.cluster.arn)?;
        return Ok(Assessment {
            open_run: Some(state),
            ..nothing
        });
    }
    let inventory = match live {
        Some(ui) => connection.read_for_upgrade(&input.plan, ui).await?,
        None => connection.read_for_plan(&input.plan).await?,
    };
    let (route, mut findings) = match &input.saved {
        Some(saved) => {
            check_no_drift(saved, &inventory, &input.plan)?;
            let route = Ok(saved.route.clone());
            let findings = ready::check_readiness(&input.plan, &inventory, &route);
            (route.ok(), findings)
        }
        None => route_view::build_and_judge(&input.plan, &inventory),
    };
    let of_caller =
        permissions::find_missing_permissions(connection, &input.plan, route.as_ref(), &inventory);
    findings.extend(of_caller.await?);
    Ok(Assessment {
        route,
        findings,
        ..nothing
    })
}

impl Assessment {
    /// What is to be carried; `None` when there is nothing to do.
    pub fn into_pending_route(
        self,
        plan: &Plan,
        again: &str,
    ) -> Result<Option<PendingRoute>, CliError> {
        if let Some(state) = &self.open_run {
            let route = stored_route(state)?;
            let over = |id: &str| state.find_step(id).is_some_and(|s| s.status.is_over());
            let left = route.steps.iter().filter(|s| !over(&s.id));
            return Ok(Some(PendingRoute {
                new_route: None,
                estimate: left.map(|s| s.estimate).sum(),
            }));
        }
        let blocked = count_blockers(&self.findings) > 0;
        let Some(route) = self.route.filter(|_| !blocked) else {
            return Err(not_ready_error(&plan.cluster, &self.findings, again));
        };
        Ok((!route.steps.is_empty()).then(|| PendingRoute {
            estimate: route_view::estimate_route(&route),
            new_route: Some(route),
        }))
    }
}

/// Finds out what is ahead and shows it; `None` when there is nothing to do.
pub async fn prepare_route(
    cx: &CommandContext,
    connection: &ClusterConnection,
    input: &PlanInput,
    until: Option<&str>,
    again: &str,
    live: Option<&Ui>,
) -> Result<Option<PendingRoute>, CliError> {
    let found = assess_cluster(connection, input, live).await?;
    let now = connection.clock.now();
    if let Some(state) = &found.open_run {
        let route = stored_route(state)?;
        check_step_id(&route, until)?;
        let said = plan_gates::summarize_gates(&input.plan, &route, Some(state), now)?;
        let done = state.steps.iter().filter(|s| s.status.is_over()).count();
        let n = state.steps.len();
        cx.ui.print_note(&format!(
            "run {} is open: {done} of {n} steps are done",
            state.run
        ));
        for line in said.lines {
            cx.ui.print_note(&line);
        }
    } else {
        let said = match &found.route {
            Some(route) => plan_gates::summarize_gates(&input.plan, route, None, now)?,
            None => GateSummary::default(),
        };
        let (route, findings) = (found.route.as_ref(), &found.findings);
        match cx.ui.format {
            OutputFormat::Text => cx
                .ui
                .print_note(&render_preview(cx, route, findings, &said, now)),
            OutputFormat::Json | OutputFormat::Markdown => {
                let done = DoneSteps::new();
                show_route(
                    &cx.ui,
                    route.map(|r| (r, &done)),
                    findings,
                    &said,
                    Some(now),
                )?;
            }
        }
    }
    let ahead = found.into_pending_route(&input.plan, again)?;
    match &ahead {
        Some(ahead) => {
            if let Some(route) = &ahead.new_route {
                check_step_id(route, until)?;
            }
        }
        None => cx.ui.print_note(&format!(
            "nothing to do: cluster {} is as the plan wants it",
            input.plan.cluster
        )),
    }
    Ok(ahead)
}

/// Refuses a saved plan whose cluster is not what it was.
fn check_no_drift(saved: &SavedPlan, inventory: &Inventory, plan: &Plan) -> Result<(), CliError> {
    let drift = saved.find_drift(plan, inventory);
    if drift.is_empty() {
        return Ok(());
    }
    let text = format!(
        "cluster {} has drifted since the plan was saved",
        plan.cluster
    );
    Err(CliError::new(CliErrorKind::Mismatch, text)
        .with_state(drift)
        .with_hint("nothing was changed; review the new plan and save it again")
        .with_next_command(format!("eksup plan {} --out FILE", saved.plan_name)))
}

/// What is about to be done is said beside the run's own output.
fn render_preview(
    cx: &CommandContext,
    route: Option<&Route>,
    found: &[Finding],
    said: &GateSummary,
    now: Timestamp,
) -> String {
    let mut text = super::findings::render_text(found, cx.ui.paint);
    if let Some(route) = route {
        text += &route_view::render_text(route, &DoneSteps::new(), cx.ui.paint);
        let back = super::rollback_scope::preview_rollback(route, now);
        if !back.is_empty() {
            text += &format!("\nrollback:\n  {}\n", back.join("\n  "));
        }
    }
    for line in &said.lines {
        text += &format!("{line}\n");
    }
    text
}

/// Who carries a run: machine, process and a little chance, so that a restarted container is another one.
pub fn make_holder_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|h| h.trim().to_owned())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "somewhere".to_owned());
    let chance: String = (0..6)
        .map(|_| fastrand::alphanumeric().to_ascii_lowercase())
        .collect();
    format!("{host}-{}-{chance}", std::process::id())
}
