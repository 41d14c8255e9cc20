//! A plan of `plans/` on the bundled cluster it is for.

use eksup::aws::AwsApi;
use eksup::chaos::oracle::EndState;
use eksup::chaos::trial::TrialEnd;
use eksup::chaos::{FaultSchedule, Trial};
use eksup::cli::args::GlobalArgs;
use eksup::cli::ui::{Ui, UiEnv};
use eksup::model::snapshot::Snapshot;
use eksup::model::{Clock, Inventory};
use eksup::run::assess::PlanInput;
use eksup::twin::{Twin, scenario};
use eksup::wire::Wire;

pub struct ChaosFixture {
    snapshot: Snapshot,
    input: PlanInput,
    ui: Ui,
}

impl ChaosFixture {
    pub fn new(name: &str) -> Self {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plans/{name}.yaml"));
        let plan = eksup::plan::load_plan(&path).unwrap_or_else(|e| panic!("{:?}", e.problems));
        Self {
            snapshot: scenario::find_scenario(name).unwrap(),
            input: PlanInput { plan, saved: None },
            ui: Ui::new(&GlobalArgs::default(), UiEnv::default()),
        }
    }

    pub fn trial(&self) -> Trial<'_> {
        Trial {
            snapshot: &self.snapshot,
            input: &self.input,
            output: &self.ui,
            baseline: None,
            before: None,
            tell: false,
            wrap_wire: None,
        }
    }

    /// The beginning, and the end without faults.
    pub fn baseline(&self) -> (Inventory, EndState) {
        let report = self.trial().run_seed(&FaultSchedule::baseline(1)).unwrap();
        assert_eq!(
            (report.trial_end, &report.faults),
            (Some(TrialEnd::Done), &vec![]),
            "{:?}",
            report.end_messages
        );
        (report.begin_inventory.unwrap(), report.end_state.unwrap())
    }

    /// A trial that knows the beginning, and the end without faults.
    pub fn trial_with<'a>(&'a self, (before, end): &'a (Inventory, EndState)) -> Trial<'a> {
        Trial {
            baseline: Some(end),
            before: Some(before),
            ..self.trial()
        }
    }
}

/// Asks the twin of a snapshot over its wire, with `around` put around it, in virtual time.
pub fn ask_twin(
    snapshot: &Snapshot,
    around: &(dyn Fn(Wire) -> Wire + Sync),
    ask: impl AsyncFnOnce(&AwsApi, &Twin),
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async {
        let clock = Clock::starting_at(snapshot.inventory.taken_at);
        let twin = Twin::start(scenario::load_world(snapshot, 1));
        let region = &snapshot.inventory.region;
        let aws = AwsApi::over_wire(around(twin.wire()), region, &clock);
        ask(&aws, &twin).await;
    });
    runtime.shutdown_background();
}
