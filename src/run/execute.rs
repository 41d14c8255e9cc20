//! Carries a run: lock, journal, engine, reporters. Rehearsals come through here exactly as the real thing does.

use super::context::{RunCommands, RunContext, RunRequest};
use super::error::{RunError, RunErrorKind};
use super::journal_status::status_lines;
use super::notify::Notifier;
use super::outcome::to_command_result;
use super::run_facts::tell_end;
use super::session::RunSession;
use super::stored_run::stored_route;
use super::{live_status, version_rollback};
use crate::engine::{RunOutcome, state_diff};
use crate::event::{self, RunEvent};
use crate::journal::{RunPhase, RunState, StepState, StepStatus};
use crate::model::Timestamp;
use crate::report::{Reporter, RunView};

/// Carries a run as far as it goes. Returns what was seen of it when it ends well.
pub async fn execute_run(
    context: &RunContext<'_>,
    request: RunRequest<'_>,
) -> Result<RunView, RunError> {
    let (bus, rx) = event::open_event_bus();
    let sinks = context.output.open_sinks(context.record_dir.as_deref())?;
    let clock = context.live.then(|| context.reached.clock.clone());
    let reporter = Reporter::start(rx, sinks, clock)
        .map_err(|e| RunError::new(RunErrorKind::Unexpected, format!("no reporter: {e}")))?;
    // Only a real upgrade tells anybody. A rehearsal, and a rollback that a person is watching, do not.
    let notifier = match &request {
        RunRequest::Apply { plan, .. } if context.live => {
            Notifier::start(&plan.notify, &context.reached.aws)
        }
        RunRequest::Apply { .. } | RunRequest::Rollback { .. } => None,
    };
    let told = notifier.as_ref().map(Notifier::sender);
    let mut session = RunSession::new(context, bus.clone(), told);
    // Everything a run does is inside; on the heap it spares the stack.
    let (state, ended) = Box::pin(session.execute_request(request)).await;
    // The lock is given back by now, so whatever takes time here holds up nobody.
    let mut warnings = session.into_warnings();
    if let Some(notifier) = notifier {
        warnings.extend(notifier.finish(&context.stop).await);
    }
    // Versions are of a run that was opened, and then only.
    if state.is_some() {
        let is_done = matches!(ended, Ok(RunOutcome::Done | RunOutcome::RolledBack { .. }));
        tell_end(context, is_done, |kind| {
            bus.send_event(RunEvent {
                at: context.reached.clock.now(),
                kind,
            });
        })
        .await;
    }
    bus.close_stream();
    let (view, failed) = reporter.finish();
    warnings.extend(failed);
    for warning in warnings {
        context.output.print_note(&format!("warning: {warning}"));
    }
    // Every end says where control plane, traffic and nodes are, so that nobody has to guess what a failure left
    // behind.
    let stands = describe_end(state.as_ref(), &view);
    let run = state.as_ref().map(|s| s.run.clone()).unwrap_or_default();
    match ended.and_then(|ended| to_command_result(&run, ended, &context.commands)) {
        Ok(()) => {
            if let Some(note) = handback_note(state.as_ref(), &context.commands) {
                context.output.print_note(&note);
            }
            Ok(view)
        }
        // Whoever is woken by this needs the cluster itself, not only the journal's view of it.
        Err(error) if error.kind == RunErrorKind::Stuck => {
            Err(add_live_status(context, state.as_ref(), error)
                .await
                .with_state(stands)
                .or_next_command(&context.commands.resume))
        }
        Err(error) if error.kind == RunErrorKind::RolledBack => {
            let error = error
                .with_state(stands)
                .or_next_command(&context.commands.resume);
            let now = context.reached.clock.now();
            let notes = [
                state.as_ref().and_then(|s| version_rollback_note(s, now)),
                state.as_ref().and_then(left_pools_note),
            ];
            let with_note = |error: RunError, note: String| error.with_hint(note);
            Err(notes.into_iter().flatten().fold(error, with_note))
        }
        Err(error) => Err(error
            .with_state(stands)
            .or_next_command(&context.commands.resume)),
    }
}

/// The command that follows a run whose groups a tool owns: until the tool is told, its next run would undo this one.
fn handback_note(state: Option<&RunState>, commands: &RunCommands) -> Option<String> {
    let route = stored_route(state?).ok()?;
    let (tools, command) = (route.owner_names()?, commands.handback.as_ref()?);
    Some(format!(
        "next: {command} (prints what {tools} has to be told)"
    ))
}

/// Where everything is, as the journal knows it. Never empty: without it the command would say that it changed nothing.
fn describe_end(state: Option<&RunState>, view: &RunView) -> Vec<String> {
    let Some(state) = state else {
        return vec!["this process changed nothing; `eksup status` shows the state".to_owned()];
    };
    let lines = match stored_route(state) {
        Ok(route) => status_lines(state, &route, Some(view)),
        Err(_) => Vec::new(),
    };
    if !lines.is_empty() {
        return lines;
    }
    // A route that this eksup cannot read leaves only the ids of its steps.
    let begun = |s: &&StepState| s.status != StepStatus::Pending;
    let begun: Vec<&str> = (state.steps.iter().filter(begun))
        .map(|s| s.id.as_str())
        .collect();
    let begun = match begun.as_slice() {
        [] => "none of its steps has begun".to_owned(),
        ids => format!("these of its steps have begun: {}", ids.join(", ")),
    };
    vec![format!(
        "run {}: {begun}; its journal does not say where traffic and nodes are",
        state.run
    )]
}

/// After everything else is back, the control plane's own way may still be open.
fn version_rollback_note(state: &RunState, now: Timestamp) -> Option<String> {
    let route = stored_route(state).ok()?;
    let hop = version_rollback::find_last_hop(state, &route)?;
    let until = hop.rollback_deadline()?;
    let time = state_diff::format_time(until);
    let at = hop.describe_version();
    Some(if until < now {
        format!("the control plane {at}: EKS could roll it back until {time}")
    } else {
        // While EKS is at the hop it takes no other update.
        let once = match hop.is_finished {
            true => "",
            false => "when it is there, ",
        };
        format!(
            "the control plane {at}; {once}until {time} EKS can roll it back to {}: `eksup rollback --control-plane`",
            hop.from
        )
    })
}

/// Karpenter goes on by itself where a rollback has let NodePools go and the control plane stays, which ends EKS's own way
/// back.
fn left_pools_note(state: &RunState) -> Option<String> {
    let route = stored_route(state).ok()?;
    let hop = version_rollback::find_last_hop(state, &route)?;
    let acted = |id: &str| state.find_step(id).is_some_and(|s| s.acts > 0);
    let acted = route.steps.iter().filter(|step| acted(&step.id));
    let pools: Vec<&str> = acted.filter_map(|step| step.spec.held_pool()).collect();
    (!pools.is_empty()).then(|| {
        format!(
            "NodePool {}: Karpenter replaces their nodes by those of {} from now on, under their own budgets; EKS does not roll the control plane back while one is of {}",
            pools.join(", "),
            hop.to,
            hop.to
        )
    })
}

/// Whoever is woken by a run that is stuck sees what is where in the cluster itself, what is left of the run, and, when
/// it was being rolled back, the commands that take each piece back by hand.
async fn add_live_status(
    context: &RunContext<'_>,
    state: Option<&RunState>,
    mut error: RunError,
) -> RunError {
    let route = state.and_then(|s| stored_route(s).ok());
    // A cluster that cannot be read now must not hide the error itself.
    let found = match live_status::read_live_status(context.reached, state, route.as_ref()).await {
        Ok(found) => found,
        Err(why) => {
            return error.with_hint(format!(
                "the cluster could not be read now ({why}); `eksup status` reads it again"
            ));
        }
    };
    error.state.extend(found.lines);
    error
        .state
        .extend(found.marks.iter().map(|m| format!("left of the run: {m}")));
    if state.is_some_and(|s| s.phase != RunPhase::Forward) {
        for command in found.commands {
            error = error.with_hint(format!("by hand: {command}"));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use serde_json::{Value, json};

    use super::*;
    use crate::journal::{JOURNAL_FORMAT, JournalEntry, OpenedEntry, Record};
    use crate::route::StepSpec;
    use crate::run::rollback_tests::{self, done_run, run_of_owned_group};

    #[test]
    fn a_version_rollback_is_offered_only_until_its_seven_days_are_over() {
        let (state, hop) = done_run();
        let until = hop.rollback_deadline().unwrap();
        let offered = version_rollback_note(&state, until - SignedDuration::from_secs(1)).unwrap();
        assert!(offered.contains("--control-plane"), "{offered}");
        let late = version_rollback_note(&state, until + SignedDuration::from_secs(1)).unwrap();
        assert!(!late.contains("--control-plane"), "{late}");
    }

    #[test]
    fn a_run_of_a_group_that_a_tool_owns_ends_with_what_to_tell_the_tool_and_a_rehearsal_does_not()
    {
        let mut commands = RunCommands {
            handback: Some("eksup handback p.yaml".to_owned()),
            ..RunCommands::default()
        };
        let state = run_of_owned_group();
        let note = handback_note(Some(&state), &commands).unwrap();
        assert!(note.starts_with("next: eksup handback p.yaml (") && note.contains("Terraform"));
        assert_eq!(handback_note(Some(&done_run().0), &commands), None);
        commands.handback = None;
        assert_eq!(handback_note(Some(&state), &commands), None);
    }

    #[test]
    fn a_rollback_that_leaves_node_pools_at_a_newer_control_plane_says_what_comes() {
        let mut route = rollback_tests::route();
        route.steps[0].spec = StepSpec::HoldPool {
            pool: "general".into(),
            all_reasons: false,
        };
        let held = rollback_tests::run(&route, "control-plane-1.29");
        let note = left_pools_note(&held).unwrap();
        assert!(
            note.starts_with("NodePool general: Karpenter replaces") && note.contains("1.29"),
            "{note}"
        );
        assert_eq!(left_pools_note(&done_run().0), None);
    }

    #[test]
    fn a_hop_that_was_begun_is_said_to_be_on_its_way_after_a_rollback_without_it() {
        let (mut state, hop) = done_run();
        let step = state.steps.iter_mut().find(|s| s.id == hop.step).unwrap();
        step.status = StepStatus::Begun;
        let note = version_rollback_note(&state, hop.done.unwrap()).unwrap();
        assert!(!note.contains("stays at"), "{note}");
        assert!(
            note.contains("being upgraded from 1.28 to 1.29")
                && note.contains("when it is there, until "),
            "{note}"
        );
    }

    #[test]
    fn a_run_whose_route_cannot_be_read_still_says_that_it_has_acted() {
        let entry = JournalEntry::Opened(OpenedEntry {
            format: JOURNAL_FORMAT,
            run: "r1".into(),
            plan_digest: "d".into(),
            cluster_arn: "arn".into(),
            steps: vec!["hop".into(), "later".into()],
            route: json!({"of": "a newer eksup"}),
            plan: Value::Null,
            workloads: Default::default(),
        });
        let at = Timestamp::UNIX_EPOCH;
        let mut state = RunState::from_opening(&Record { seq: 0, at, entry }).unwrap();
        let entry = JournalEntry::Started { step: "hop".into() };
        state.apply_record(&Record { seq: 1, at, entry }).unwrap();
        let lines = describe_end(Some(&state), &RunView::default());
        assert!(lines[0].contains("begun: hop;"), "{lines:?}");
    }
}
