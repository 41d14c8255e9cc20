//! Whole screens of `status` and `rollback`, in every format that they have, over runs in virtual time. Neither screen
//! depends on the terminal's width: lines end at 240 columns. A change of words is reviewed as a change of a snapshot.

use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::Parser;
use eksup::cli::args::{GlobalArgs, PlanArg};
use eksup::cli::context::CommandContext;
use eksup::cli::error_text::render_error;
use eksup::cli::rollback::{ROLLBACK_QUESTION, describe_run};
use eksup::cli::status::render_status_screen;
use eksup::cli::ui::{Ui, UiEnv};
use eksup::engine::stop;
use eksup::plan::plan_digest;
use eksup::report::json::JsonSink;
use eksup::report::lines::LineSink;
use eksup::report::markdown::MarkdownSink;
use eksup::report::{EventSink, Painter};
use eksup::run::RunError;
use eksup::run::context::{RunContext, RunRequest};
use eksup::run::execute::execute_run;
use eksup::run::output::RunOutput;
use eksup::run::rollback_scope::read_scope;
use eksup::run::run_target::RunTarget;
use eksup::run::stored_run::{read_run_state, stored_route};
use eksup::twin::{fault, scenario};

use super::EXPENSE;
use crate::support::process_rig::Rig;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    global: GlobalArgs,
}

/// What a command writes to a stream.
#[derive(Clone, Default)]
struct Stream(Arc<Mutex<Vec<u8>>>);

impl Stream {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The two streams of a command without a terminal.
#[derive(Clone, Default)]
struct Screen {
    out: Stream,
    err: Stream,
    format: &'static str,
}

impl RunOutput for Screen {
    fn print_note(&self, text: &str) {
        writeln!(self.err.clone(), "{text}").unwrap();
    }

    fn open_sinks(&self, _record: Option<&Path>) -> Result<Vec<Box<dyn EventSink>>, RunError> {
        let plain = Painter { on: false };
        let mut sinks: Vec<Box<dyn EventSink>> =
            vec![Box::new(LineSink::new(self.err.clone(), plain))];
        match self.format {
            "json" => sinks.push(Box::new(JsonSink::new(self.out.clone()).unwrap())),
            "markdown" => sinks.push(Box::new(MarkdownSink::new(self.out.clone()))),
            _ => {}
        }
        Ok(sinks)
    }
}

/// A run of the expense cluster's plan, and the plan's file for the commands.
struct Scene {
    rig: Rig,
    folder: tempfile::TempDir,
}

impl Scene {
    fn new(more: &str) -> Self {
        Self::of("expense-dev", &format!("{EXPENSE}\n{more}"))
    }

    fn of(cluster: &str, plan: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), plan).unwrap();
        let rig = Rig::new(&scenario::find_scenario(cluster).unwrap(), plan, 1);
        Self { rig, folder }
    }

    fn plan_arg(&self) -> PlanArg {
        PlanArg {
            plan: Some(self.folder.path().join("p.yaml")),
            cluster: None,
        }
    }

    fn command_context(&self, format: &str) -> CommandContext {
        let global = Flags::parse_from(["eksup", "--format", format]).global;
        let ui = Ui::new(&global, UiEnv::default());
        CommandContext::new(global, ui)
    }

    fn tidy(&self, text: &str) -> String {
        let folder = format!("{}/", self.folder.path().display());
        text.replace(&folder, "")
            .replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    async fn status(&self, format: &str) -> String {
        let context = self.command_context(format);
        let reached = self.rig.reached().await;
        let plan = self.plan_arg();
        // On the heap: together the futures are too large for a test's stack.
        let text = Box::pin(render_status_screen(&context, &plan, &reached)).await;
        let text = self.tidy(&text.unwrap());
        if format == "text" {
            return text;
        }
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::to_string_pretty(&object).unwrap()
    }

    /// A process of its own that carries the run and prints to `screen`; what it ends with is printed too.
    async fn execute(&self, request: RunRequest<'_>, command: &str, screen: &Screen) {
        let reached = self.rig.reached().await;
        let (_asker, stop) = stop::stop_channel();
        let commands = self.command_context("text");
        let context = RunContext {
            output: screen,
            reached: &reached,
            stop,
            holder: "runner-1".to_owned(),
            commands: commands.run_commands(command, &self.plan_arg(), Vec::new(), None),
            record_dir: None,
            accept_short: Vec::new(),
            live: true,
        };
        if let Err(error) = Box::pin(execute_run(&context, request)).await {
            let page = render_error(&error, Painter { on: false }, 100, false);
            write!(screen.err.clone(), "{page}").unwrap();
        }
    }

    /// An apply that pauses where the plan says so. A rehearsal, which approves by itself, would not.
    async fn apply_live(&self) {
        let reached = self.rig.reached().await;
        let inventory = Box::pin(reached.read_inventory(None)).await.unwrap();
        let route = eksup::route::build_route(&self.rig.plan, &inventory).unwrap();
        let request = RunRequest::Apply {
            plan: &self.rig.plan,
            digest: plan_digest(&self.rig.plan),
            route: Some(route),
            until: None,
            judged: None,
        };
        Box::pin(self.execute(request, "apply", &Screen::default())).await;
    }

    /// The screen of `eksup rollback`, from the state of the run over the question to the end.
    async fn roll_back(&self, format: &'static str) -> String {
        let screen = Screen {
            format,
            ..Screen::default()
        };
        let reached = self.rig.reached().await;
        let state = read_run_state(&reached).await.unwrap().unwrap();
        let route = stored_route(&state).unwrap();
        let scope = Box::pin(read_scope(&reached, &state, &route, false));
        let scope = scope.await.unwrap();
        for line in describe_run(&state, &route) {
            screen.print_note(&line);
        }
        for line in scope.describe_lines() {
            screen.print_note(&format!("  {line}"));
        }
        screen.print_note(&RunTarget::read(&reached).await.describe());
        screen.print_note(&format!("{ROLLBACK_QUESTION} Only `yes` is accepted: yes"));
        let request = RunRequest::Rollback {
            control_plane: false,
        };
        Box::pin(self.execute(request, "rollback", &screen)).await;
        let (out, err) = (screen.out.text(), screen.err.text());
        self.tidy(&format!(
            "--- standard output\n{out}--- standard error\n{err}"
        ))
    }
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_run_paused_after_a_step_and_of_its_rollback() {
    let scene = Scene::new("");
    Box::pin(scene.rig.apply_until("drain-expense-blue")).await;
    insta::assert_snapshot!("status_open", Box::pin(scene.status("text")).await);
    insta::assert_snapshot!("status_open_json", Box::pin(scene.status("json")).await);
    let screen = Box::pin(scene.roll_back("text")).await;
    insta::assert_snapshot!("rollback_text", screen);
    insta::assert_snapshot!("status_rolled_back", Box::pin(scene.status("text")).await);
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_run_that_waits_for_approval() {
    let scene = Scene::new("approvals: {before: [control-plane-1.28]}");
    Box::pin(scene.apply_live()).await;
    insta::assert_snapshot!(
        "status_waits_for_approval",
        Box::pin(scene.status("text")).await
    );
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_stuck_run() {
    let scene = Scene::new("");
    let missing = vec!["image-missing:expense/redis@58m".parse().unwrap()];
    scene
        .rig
        .twin
        .with_world(|world| fault::add_rules(world, missing));
    Box::pin(scene.rig.apply()).await;
    insta::assert_snapshot!("status_stuck", Box::pin(scene.status("text")).await);
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_run_that_is_stuck_in_a_drift() {
    let plan = include_str!("../../../plans/karpenter-drift.yaml");
    let scene = Scene::of("karpenter-drift", plan);
    super::world::happen(&scene.rig, &["do-not-disrupt:expense/backend"]);
    Box::pin(scene.rig.apply()).await;
    insta::assert_snapshot!(
        "status_stuck_in_drift",
        Box::pin(scene.status("text")).await
    );
}

#[tokio::test(start_paused = true)]
async fn the_status_of_a_run_that_is_done() {
    let scene = Scene::new("");
    Box::pin(scene.rig.apply()).await;
    insta::assert_snapshot!("status_done", Box::pin(scene.status("text")).await);
    insta::assert_snapshot!("status_done_json", Box::pin(scene.status("json")).await);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_as_events_and_as_a_table() {
    let scene = Scene::new("");
    Box::pin(scene.rig.apply_until("green-expense-green")).await;
    let screen = Box::pin(scene.roll_back("json")).await;
    let (out, _) = screen.split_once("--- standard error").unwrap();
    insta::assert_snapshot!("rollback_json", out);
    let scene = Scene::new("");
    Box::pin(scene.rig.apply_until("green-expense-green")).await;
    let screen = Box::pin(scene.roll_back("markdown")).await;
    let (out, _) = screen.split_once("--- standard error").unwrap();
    insta::assert_snapshot!("rollback_markdown", out);
}
