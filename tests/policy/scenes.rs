//! What is played under a policy. Together the scenes need everything that a policy can hold.

use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;

use super::grant::Grant;
use super::rig::{Rig, Told};

/// A plan on a bundled cluster, and what is done with it.
pub struct Scene {
    pub name: &'static str,
    /// A plan in `plans/`, of the cluster of the same name.
    plan: &'static str,
    /// What is put in place of what in the plan.
    change: &'static [(&'static str, &'static str)],
    cluster: fn(Snapshot) -> Snapshot,
    play: Play,
}

#[derive(Clone, Copy)]
enum Play {
    Snapshot,
    Forward,
    /// Until after a step, and all the way back.
    Back(&'static str),
}

const fn forward(plan: &'static str) -> Scene {
    Scene {
        name: plan,
        plan,
        change: &[],
        cluster: |s| s,
        play: Play::Forward,
    }
}

/// In the order of how long they take.
pub const SCENES: &[Scene] = &[
    Scene {
        name: "a snapshot",
        play: Play::Snapshot,
        ..forward("expense-dev")
    },
    forward("minimal"),
    forward("expense-dev"),
    Scene {
        name: "expense-dev and back",
        play: Play::Back("drain-expense-blue"),
        ..forward("expense-dev")
    },
    forward("controller-ingress"),
    forward("custom-ami"),
    forward("local-policy"),
    Scene {
        name: "local-policy and back",
        play: Play::Back("drain-expense-blue"),
        ..forward("local-policy")
    },
    forward("canary"),
    forward("multi-hop"),
];

impl Scene {
    /// The plan's text.
    pub fn plan(&self) -> String {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plans");
        let mut text = std::fs::read_to_string(dir.join(format!("{}.yaml", self.plan))).unwrap();
        for (old, new) in self.change {
            assert!(text.contains(old), "{}: {old}", self.name);
            text = text.replace(old, new);
        }
        text
    }

    /// Plays it under `grant`.
    pub async fn play(&self, grant: &Grant) -> Told {
        let snapshot = (self.cluster)(scenario::named(self.plan).unwrap());
        let rig = Rig::new(&snapshot, &self.plan(), grant);
        let well = match self.play {
            Play::Snapshot => rig.snapshot().await,
            Play::Forward => rig.apply(None).await,
            Play::Back(step) => rig.apply(Some(step)).await && rig.rollback().await,
        };
        rig.told(well)
    }
}
