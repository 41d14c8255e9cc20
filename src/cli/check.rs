//! `eksup check`.

use clap::Args;

use super::args::{Format, PlanArg};
use super::context::{Context, Reached};
use super::error::CliError;
use super::findings::{self, Found, blocking, not_ready};
use super::route;
use crate::model::Inventory;
use crate::plan::Plan;

/// Show readiness findings only; never writes anything
#[derive(Debug, Args)]
pub struct CheckArgs {
    #[command(flatten)]
    plan: PlanArg,
}

/// Shows what stands in the way.
pub async fn run(cx: &Context, args: CheckArgs) -> Result<(), CliError> {
    let (_, plan) = cx.plan(&args.plan)?;
    let reached = cx.reach(&plan.cluster, plan.region.as_deref()).await?;
    let inventory = reached.read(Some(plan.to)).await?;
    let mut found = examine(&reached, &plan, &inventory).await?;
    if let Err(problems) = route::draw(&plan, &inventory) {
        found.extend(
            problems
                .into_iter()
                .filter(|p| !found.contains(p))
                .collect::<Vec<_>>(),
        );
    }
    match cx.ui.format {
        Format::Text => cx.ui.out(&findings::text(&found, cx.ui.out_paint))?,
        Format::Markdown => cx.ui.out(&findings::markdown(&found))?,
        Format::Json => {
            cx.ui.out_json(&crate::report::json::version())?;
            let (findings, blocking) = (findings::json(&found), blocking(&found));
            let line =
                serde_json::json!({"type": "findings", "findings": findings, "blocking": blocking});
            cx.ui.out_json(&line)?;
        }
    }
    if blocking(&found) > 0 {
        return Err(not_ready(
            &plan.cluster,
            &found,
            &cx.again("check", &args.plan),
        ));
    }
    cx.ui.say(&format!(
        "cluster {} is ready for {}",
        plan.cluster, plan.to
    ));
    Ok(())
}

/// Everything that stands in the way or should be known.
pub async fn examine(
    reached: &Reached,
    plan: &Plan,
    inventory: &Inventory,
) -> Result<Vec<Found>, CliError> {
    let _ = (reached, plan);
    Ok(inventory
        .unread
        .iter()
        .map(|u| Found {
            weight: findings::Weight::Warn,
            code: "EKSUP-U001".to_owned(),
            subject: u.op.clone(),
            detail: u.why.clone(),
            fix: "allow it, or make sure by hand of what it would have said".to_owned(),
        })
        .collect())
}
