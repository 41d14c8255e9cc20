//! A plan of `plans/` on the bundled cluster it is for.

use eksup::cli::apply::Wish;
use eksup::cli::args::Global;
use eksup::cli::chaos::judge::World;
use eksup::cli::chaos::trial::Last;
use eksup::cli::chaos::{Trial, Weather};
use eksup::cli::ui::{Env, Ui};
use eksup::model::Inventory;
use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;

pub struct Ground {
    snapshot: Snapshot,
    wish: Wish,
    ui: Ui,
}

impl Ground {
    pub fn new(name: &str) -> Self {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("plans/{name}.yaml"));
        let plan = eksup::plan::load(&path).unwrap_or_else(|e| panic!("{:?}", e.problems));
        Self {
            snapshot: scenario::named(name).unwrap(),
            wish: Wish { plan, saved: None },
            ui: Ui::new(&Global::default(), Env::default()),
        }
    }

    pub fn trial(&self) -> Trial<'_> {
        Trial {
            snapshot: &self.snapshot,
            wish: &self.wish,
            ui: &self.ui,
            calm: None,
            before: None,
            tell: false,
            around: None,
        }
    }

    /// The beginning, and the end without weather.
    pub fn calm(&self, trial: &Trial<'_>) -> (Inventory, World) {
        let verdict = trial.run(&Weather::calm(1)).unwrap();
        assert_eq!(
            (verdict.last, &verdict.faults),
            (Some(Last::Done), &vec![]),
            "{:?}",
            verdict.said
        );
        (verdict.begin.unwrap(), verdict.end.unwrap())
    }
}
