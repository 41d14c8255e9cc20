//! `eksup apply`.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use clap::Args;

use super::args::{Format, PlanArg};
use super::carry::{Errand, Trip, carry, peek, route_of};
use super::context::{Context, Reached};
use super::error::{CliError, Kind};
use super::findings::{blocking, not_ready};
use super::gates::{self, Said};
use super::journey::{agrees, known};
use super::plan::show;
use super::route::DoneSteps;
use super::saved::Saved;
use super::signals::unless_stopped;
use super::start::usage;
use super::ui::Ui;
use super::{lifetime, permissions, route, signals};
use crate::engine::stop;
use crate::journal::RunState;
use crate::model::{Inventory, Timestamp};
use crate::plan::{self, Plan, digest};
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
pub struct Wish {
    pub plan: Plan,
    pub saved: Option<Saved>,
}

/// Runs or resumes the upgrade.
pub async fn run(cx: &Context, args: ApplyArgs) -> Result<(), CliError> {
    let wish = wish(cx, &args.plan)?;
    if !args.auto_approve && !cx.ui.env.stdin_terminal {
        return Err(
            usage("without a terminal nobody can be asked: give --auto-approve")
                .hint("`eksup plan` shows first what would be done")
                .next(format!("{} --auto-approve", cx.again("apply", &args.plan))),
        );
    }
    let mut resume = cx.again("apply", &args.plan);
    if args.auto_approve {
        resume += " --auto-approve";
    }
    let again = match &args.until {
        Some(step) => format!("{resume} --until {step}"),
        None => resume.clone(),
    };
    // From here on a signal is heard at any moment, and nothing is changed before the run is open.
    let (asker, stop) = stop::channel();
    signals::listen(asker, cx.ui.clone())?;
    let ready = async {
        let (cluster, region) = (&wish.plan.cluster, wish.plan.region.as_deref());
        let reached = cx.reach(cluster, region).await?;
        let until = args.until.as_deref();
        let ahead = prepare(cx, &reached, &wish, until, &again, Some(&cx.ui)).await?;
        let Some(ahead) = ahead else { return Ok(None) };
        if let Some(end) = lifetime::of(&reached).await
            && let Some(note) = lifetime::note(&end, ahead.estimate, reached.clock.now())
        {
            cx.ui.say(&note);
        }
        let yes = args.auto_approve || cx.ui.confirm("Do this?").await?;
        Ok::<_, CliError>(Some((reached, ahead, yes)))
    };
    let Some((reached, route, yes)) = unless_stopped(&stop, ready).await? else {
        return Ok(());
    };
    if !yes {
        return Err(CliError::new(Kind::Paused, "not confirmed; nothing was done").next(resume));
    }
    let trip = Trip {
        ui: &cx.ui,
        reached: &reached,
        stop,
        holder: holder(),
        resume,
        record: Some(cx.global.run_dir.clone()),
        accept_short: args.accept_short.clone(),
        passed_over: route.passed_over.clone(),
        live: true,
    };
    let digest = digest(&wish.plan);
    let errand = Errand::Forward {
        plan: &wish.plan,
        digest,
        route: route.fresh,
        until: args.until,
    };
    let view = carry(&trip, errand).await?;
    let folder = cx.global.run_dir.join(&view.run);
    cx.ui.say(&format!(
        "report: eksup report --run {} -o report.html",
        folder.display()
    ));
    Ok(())
}

/// What is ahead: a new route, or (none) the rest of an open run's.
pub struct Ahead {
    pub fresh: Option<Route>,
    /// How long it is expected to take.
    pub estimate: Duration,
    /// Workloads that the plan accepts to be without on green.
    pub passed_over: BTreeSet<String>,
}

/// What a look at the cluster found, before anything is done.
pub struct Found {
    /// The run that is open.
    pub open: Option<RunState>,
    pub route: Option<Route>,
    pub findings: Vec<Finding>,
    /// Workloads that the plan accepts to be without on green.
    pub passed_over: BTreeSet<String>,
}

/// The plan, from its file or from a saved one.
pub fn wish(cx: &Context, arg: &PlanArg) -> Result<Wish, CliError> {
    let path = cx.plan_path(arg)?;
    match Saved::read(&path)? {
        Some(saved) => {
            let plan = plan::parse(&saved.plan_name, &saved.plan_text)?;
            Ok(Wish {
                plan,
                saved: Some(saved),
            })
        }
        None => Ok(Wish {
            plan: load(&path)?,
            saved: None,
        }),
    }
}

fn load(path: &Path) -> Result<Plan, CliError> {
    Ok(plan::load(path)?)
}

/// Looks at the cluster: an open run of this plan, or the route of a new one and what speaks against it. With `live`,
/// EKS is asked to judge its insights anew first; a rehearsal takes them as its snapshot has them.
pub async fn ahead(reached: &Reached, wish: &Wish, live: Option<&Ui>) -> Result<Found, CliError> {
    let nothing = Found {
        open: None,
        route: None,
        findings: Vec::new(),
        passed_over: BTreeSet::new(),
    };
    if let Some(state) = peek(reached).await?.filter(|s| !s.is_closed()) {
        agrees(&state, &wish.plan, &reached.cluster.arn)?;
        let accepts = wish.plan.node_groups.iter().any(|g| g.ami_type.is_some());
        let passed_over = match accepts {
            true => ready::accepted_losses(&wish.plan, &reached.read_for_plan(&wish.plan).await?),
            false => BTreeSet::new(),
        };
        return Ok(Found {
            open: Some(state),
            passed_over,
            ..nothing
        });
    }
    let inventory = match live {
        Some(ui) => reached.read_for_upgrade(&wish.plan, ui).await?,
        None => reached.read_for_plan(&wish.plan).await?,
    };
    let (route, mut findings) = match &wish.saved {
        Some(saved) => {
            undrifted(saved, &inventory, &wish.plan)?;
            let route = Ok(saved.route.clone());
            let findings = ready::judge(&wish.plan, &inventory, &route);
            (route.ok(), findings)
        }
        None => route::survey(&wish.plan, &inventory),
    };
    let of_caller = permissions::missing(reached, &wish.plan, route.as_ref(), &inventory);
    findings.extend(of_caller.await?);
    Ok(Found {
        route,
        findings,
        passed_over: ready::accepted_losses(&wish.plan, &inventory),
        ..nothing
    })
}

impl Found {
    /// What is to be carried; `None` when there is nothing to do.
    pub fn go(self, plan: &Plan, again: &str) -> Result<Option<Ahead>, CliError> {
        if let Some(state) = &self.open {
            let route = route_of(state)?;
            let over = |id: &str| state.step(id).is_some_and(|s| s.status.is_over());
            let left = route.steps.iter().filter(|s| !over(&s.id));
            return Ok(Some(Ahead {
                fresh: None,
                estimate: left.map(|s| s.estimate).sum(),
                passed_over: self.passed_over,
            }));
        }
        let blocked = blocking(&self.findings) > 0;
        let Some(route) = self.route.filter(|_| !blocked) else {
            return Err(not_ready(&plan.cluster, &self.findings, again));
        };
        Ok((!route.steps.is_empty()).then(|| Ahead {
            estimate: route::estimate(&route),
            fresh: Some(route),
            passed_over: self.passed_over,
        }))
    }
}

/// Finds out what is ahead and shows it; `None` when there is nothing to do.
pub async fn prepare(
    cx: &Context,
    reached: &Reached,
    wish: &Wish,
    until: Option<&str>,
    again: &str,
    live: Option<&Ui>,
) -> Result<Option<Ahead>, CliError> {
    let found = ahead(reached, wish, live).await?;
    let now = reached.clock.now();
    if let Some(state) = &found.open {
        let route = route_of(state)?;
        known(&route, until)?;
        let said = gates::say(&wish.plan, &route, Some(state), now)?;
        let done = state.steps.iter().filter(|s| s.status.is_over()).count();
        let n = state.steps.len();
        cx.ui.say(&format!(
            "run {} is open: {done} of {n} steps are done",
            state.run
        ));
        for line in said.lines {
            cx.ui.say(&line);
        }
    } else {
        let said = match &found.route {
            Some(route) => gates::say(&wish.plan, route, None, now)?,
            None => Said::default(),
        };
        let (route, findings) = (found.route.as_ref(), &found.findings);
        match cx.ui.format {
            Format::Text => cx.ui.say(&shown(cx, route, findings, &said, now)),
            Format::Json | Format::Markdown => {
                let done = DoneSteps::new();
                show(
                    &cx.ui,
                    route.map(|r| (r, &done)),
                    findings,
                    &said,
                    Some(now),
                )?;
            }
        }
    }
    let ahead = found.go(&wish.plan, again)?;
    match &ahead {
        Some(ahead) => {
            if let Some(route) = &ahead.fresh {
                known(route, until)?;
            }
        }
        None => cx.ui.say(&format!(
            "nothing to do: cluster {} is as the plan wants it",
            wish.plan.cluster
        )),
    }
    Ok(ahead)
}

/// Refuses a saved plan whose cluster is not what it was.
fn undrifted(saved: &Saved, inventory: &Inventory, plan: &Plan) -> Result<(), CliError> {
    let drift = saved.drift(plan, inventory);
    if drift.is_empty() {
        return Ok(());
    }
    let text = format!(
        "cluster {} has drifted since the plan was saved",
        plan.cluster
    );
    Err(CliError::new(Kind::Mismatch, text)
        .standing(drift)
        .hint("nothing was changed; look at the new plan and save it again")
        .next(format!("eksup plan {} --out FILE", saved.plan_name)))
}

/// What is about to be done is said beside the run's own output.
fn shown(
    cx: &Context,
    route: Option<&Route>,
    found: &[Finding],
    said: &Said,
    now: Timestamp,
) -> String {
    let mut text = super::findings::text(found, cx.ui.paint);
    if let Some(route) = route {
        text += &route::text(route, &DoneSteps::new(), cx.ui.paint);
        let back = super::reach::promise(route, now);
        if !back.is_empty() {
            text += &format!("\nway back:\n  {}\n", back.join("\n  "));
        }
    }
    for line in &said.lines {
        text += &format!("{line}\n");
    }
    text
}

/// Who carries a run: machine, process and a little chance, so that a restarted container is another one.
pub fn holder() -> String {
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
