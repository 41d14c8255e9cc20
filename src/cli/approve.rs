//! `eksup approve`.

use std::path::PathBuf;

use clap::Args;

use super::args::PlanArg;
use super::context::CommandContext;
use crate::journal::{
    CheckpointRecord, RunPhase, RunState, RunStore, StepStatus, approval, checkpoint_store,
};
use crate::k8s::run_state::CheckpointChange;
use crate::model::{ErrorClass, Timestamp};
use crate::plan::Plan;
use crate::route::Route;
use crate::run::cluster_connection::ClusterConnection;
use crate::run::error::{RunError, RunErrorKind, usage_error};
use crate::run::kube_store::KubeRunStore;
use crate::run::plan_gates;
use crate::run::stored_run::{check_own_run, stored_route};

/// Somebody else may write between our read and our write; this often in a row nobody does.
const MAX_WRITE_ATTEMPTS: u32 = 10;

/// Approve a step of the open run, so that the run may continue with it
///
/// The approval is written to the run's ConfigMap; the `eksup apply` that runs, or the next one, records it in the
/// journal. Without a step, the step that the run waits for is approved. It counts for this run only.
#[derive(Debug, Args)]
pub struct ApproveArgs {
    /// The plan file, a step, or both in this order
    #[arg(value_name = "PLAN] [STEP", num_args = 0..=2)]
    words: Vec<String>,
    /// Use `plans/NAME.yaml` of the working directory
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Who approves; the default is the AWS identity of the caller
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
}

/// Leaves the approval of a step on the run's ConfigMap.
pub async fn approve_step(cx: &CommandContext, args: ApproveArgs) -> Result<(), RunError> {
    let (arg, step) = split_plan_and_step(args.words, args.cluster)?;
    let (cluster, region) = cx.cluster_and_region(&arg)?;
    let reached = cx.connect_cluster(&cluster, region.as_deref()).await?;
    let remote = KubeRunStore(reached.kube.clone());
    // Who approved goes into the journal: by default the identity that AWS knows, which nobody can choose.
    let by = match args.by {
        Some(by) => by,
        None => reached.aws.get_caller_identity().await?.1,
    };
    let plan = cx.load_plan(&arg).ok().map(|(_, plan)| plan);
    // The run's own process writes the same ConfigMap. Each try reads again, as the run may have gone on meanwhile.
    for _ in 0..MAX_WRITE_ATTEMPTS {
        let stored = remote.read_checkpoint().await?;
        let Some((stored, state)) = parse_open_run(stored, &reached.cluster.arn)? else {
            return Err(RunError::new(
                RunErrorKind::Mismatch,
                format!("cluster {cluster} has no open run, so there is no step to approve"),
            )
            .with_next_command(cx.command_again("apply", &arg)));
        };
        let route = stored_route(&state)?;
        let step = choose_step(step.as_deref(), plan.as_ref(), &state, &route)?;
        // Nothing is written in this case, so that the first approval keeps its author and its time.
        if let Some(why) = why_needless(&state, &step) {
            cx.ui.print_note(&why);
            return Ok(());
        }
        match write_approval(&remote, stored, &state, &step, &by, reached.clock.now()).await {
            Ok(()) => {
                cx.ui.print_note(&format!(
                    "`{step}` of run {} is approved by {by}; continue with: {}",
                    state.run,
                    cx.command_again("apply", &arg)
                ));
                return print_approval(cx, &reached, &state, &step, &by);
            }
            Err(error) if error.class == ErrorClass::Conflict => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RunError::new(
        RunErrorKind::Unexpected,
        "other processes write to the run's ConfigMap all the time; run the same command again",
    ))
}

/// The words as plan and step: one word is a plan where it looks like a file, else a step.
fn split_plan_and_step(
    words: Vec<String>,
    cluster: Option<String>,
) -> Result<(PlanArg, Option<String>), RunError> {
    // A step's id has no slash and no ending, so a word is one or the other.
    let file = |word: &str| {
        let path = std::path::Path::new(word);
        path.exists()
            || word.contains('/')
            || [".yaml", ".yml", ".json"].iter().any(|e| word.ends_with(e))
    };
    let mut words = words.into_iter();
    let (first, second) = (words.next(), words.next());
    let plan = |path: String| PlanArg {
        plan: Some(PathBuf::from(path)),
        cluster: None,
    };
    match (cluster, first, second) {
        (Some(_), Some(_), Some(_)) => Err(usage_error("name the plan or --cluster, and one step")),
        // With a cluster named, the one word can only be a step.
        (Some(cluster), step, None) => Ok((
            PlanArg {
                plan: None,
                cluster: Some(cluster),
            },
            step,
        )),
        (None, Some(path), Some(step)) => Ok((plan(path), Some(step))),
        (None, Some(word), None) if file(&word) => Ok((plan(word), None)),
        // A lone word that is no file is a step, and the plan is found in the current directory.
        (_, step, _) => Ok((PlanArg::default(), step)),
    }
}

/// The checkpoint and the run in it, if that is not closed. A run of another cluster than `arn` is refused.
fn parse_open_run(
    stored: Option<CheckpointRecord>,
    arn: &str,
) -> Result<Option<(CheckpointRecord, RunState)>, RunError> {
    let Some(stored) = stored else {
        return Ok(None);
    };
    let state = checkpoint_store::parse_checkpoint(&stored.text)?;
    if state.is_closed() {
        return Ok(None);
    }
    check_own_run(&state, arn)?;
    Ok(Some((stored, state)))
}

/// The step that was named, or the one that the run waits for.
fn choose_step(
    named: Option<&str>,
    plan: Option<&Plan>,
    state: &RunState,
    route: &Route,
) -> Result<String, RunError> {
    let list = || {
        let ids: Vec<&str> = state.steps.iter().map(|s| s.id.as_str()).collect();
        format!("its steps are {}", ids.join(", "))
    };
    // Whatever is approved in a rollback would be approved for nothing.
    if state.phase == RunPhase::Rollback {
        return Err(RunError::new(
            RunErrorKind::Mismatch,
            format!(
                "run {} is being rolled back, which needs no approval",
                state.run
            ),
        ));
    }
    // Without a name only the step that the run waits for now is approved, never one further on.
    let Some(named) = named else {
        let waits = match plan {
            Some(plan) => plan_gates::steps_to_approve(plan, route)?,
            None => std::collections::BTreeSet::new(),
        };
        return state
            .current_step()
            .filter(|s| {
                s.status == StepStatus::Pending
                    && waits.contains(&s.id)
                    && !state.is_approved(&s.id)
            })
            .map(|s| s.id.clone())
            .ok_or_else(|| {
                usage_error(format!(
                    "run {} waits for no approval; name the step to approve it in advance",
                    state.run
                ))
                .with_hint(list())
            });
    };
    // A step that is named may be further on: an approval can be given in advance, before the run comes to it.
    if state.find_step(named).is_some() {
        return Ok(named.to_owned());
    }
    Err(usage_error(format!("run {} has no step `{named}`", state.run)).with_hint(list()))
}

/// Why nothing has to be done.
fn why_needless(state: &RunState, step: &str) -> Option<String> {
    if let Some(given) = state.approvals.iter().find(|a| a.step == step) {
        return Some(format!(
            "`{step}` was approved by {} at {} already",
            given.by, given.at
        ));
    }
    let begun = state
        .find_step(step)
        .is_some_and(|s| s.status != StepStatus::Pending);
    begun.then(|| format!("`{step}` has begun already"))
}

async fn write_approval(
    remote: &KubeRunStore,
    stored: CheckpointRecord,
    state: &RunState,
    step: &str,
    by: &str,
    now: Timestamp,
) -> Result<(), crate::model::ApiError> {
    let (key, value) = (
        approval::annotation_key(step),
        approval::annotation_value(&state.run, by, now),
    );
    let change = CheckpointChange {
        set_annotation: Some((&key, &value)),
        ..CheckpointChange::default()
    };
    let left = remote.0.change_checkpoint(&stored.version, change).await;
    left.map(drop)
}

fn print_approval(
    cx: &CommandContext,
    reached: &ClusterConnection,
    state: &RunState,
    step: &str,
    by: &str,
) -> Result<(), RunError> {
    if cx.ui.format != super::args::OutputFormat::Json {
        return Ok(());
    }
    cx.ui
        .write_json_line(&crate::report::json::version_line())?;
    cx.ui.write_json_line(&serde_json::json!({
        "type": "approved", "cluster": reached.cluster.name, "run": state.run, "step": step, "by": by,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record};

    fn words(
        words: &[&str],
        cluster: Option<&str>,
    ) -> (Option<String>, Option<String>, Option<String>) {
        let all = words.iter().map(|w| (*w).to_owned()).collect();
        let (arg, step) = split_plan_and_step(all, cluster.map(str::to_owned)).unwrap();
        (arg.plan.map(|p| p.display().to_string()), arg.cluster, step)
    }

    #[test]
    fn a_word_alone_is_a_plan_where_it_looks_like_a_file_and_else_a_step() {
        let some = |t: &str| Some(t.to_owned());
        assert_eq!(words(&[], None), (None, None, None));
        assert_eq!(
            words(&["plans/p.yaml"], None),
            (some("plans/p.yaml"), None, None)
        );
        assert_eq!(words(&["drain-x"], None), (None, None, some("drain-x")));
        assert_eq!(
            words(&["p.yaml", "drain-x"], None),
            (some("p.yaml"), None, some("drain-x"))
        );
        assert_eq!(
            words(&["drain-x"], Some("prod")),
            (None, some("prod"), some("drain-x"))
        );
        assert!(split_plan_and_step(vec!["a".into(), "b".into()], Some("prod".into())).is_err());
    }

    #[test]
    fn a_run_that_was_restored_from_another_cluster_is_approved_nothing_of() {
        let opened = JournalEntry::Opened(OpenedEntry {
            format: JOURNAL_FORMAT,
            run: "r1".into(),
            plan_digest: "d".into(),
            cluster_arn: "arn:there".into(),
            steps: vec!["drain-x".into()],
            route: serde_json::json!({}),
            plan: serde_json::Value::Null,
            workloads: Default::default(),
        });
        let opened = Record {
            seq: 0,
            at: Timestamp::UNIX_EPOCH,
            entry: opened,
        };
        let state = RunState::from_opening(&opened).unwrap();
        let stored = CheckpointRecord {
            text: checkpoint_store::checkpoint_text(&state).unwrap(),
            version: "1".into(),
            annotations: Default::default(),
        };
        let open = parse_open_run(Some(stored.clone()), "arn:there").unwrap();
        assert!(open.is_some());
        let error = parse_open_run(Some(stored), "arn:here").unwrap_err();
        assert_eq!(error.kind.exit_code(), 9);
    }
}
