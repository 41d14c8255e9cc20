//! How fast the plan of a seed and its world go.

use crate::plan::Plan;

/// How much faster than in life an upgrade goes. Most of its hours pass with waiting, where nothing new can go wrong: a
/// seed that shortens them tests as much in less time. Some seeds keep them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrialSpeed {
    /// The plan's bakes and soak are divided by this.
    pub plan: u32,
    /// And so is what AWS takes.
    pub world: u32,
}

impl TrialSpeed {
    /// As in life.
    pub const REAL_TIME: Self = Self { plan: 1, world: 1 };
    /// As fast as it goes.
    pub const FASTEST: Self = Self {
        plan: 60,
        world: 32,
    };

    pub(super) fn from_rng(rng: &mut fastrand::Rng) -> Self {
        if rng.u8(..) < 6 {
            return Self::REAL_TIME;
        }
        Self {
            plan: rng.u32(10..=60),
            world: 2 << rng.u32(0..=4),
        }
    }

    /// About how long an upgrade of a few nodes takes; what is to happen happens within.
    pub(super) fn expected_seconds(self) -> u64 {
        20 * 60 + 100 * 60 / u64::from(self.plan) + 60 * 60 / u64::from(self.world)
    }

    /// The same plan, its waits shortened.
    pub fn shorten_plan(self, plan: &Plan) -> Plan {
        let mut plan = plan.clone();
        for wait in [&mut plan.control_plane.bake, &mut plan.retire.soak] {
            *wait /= self.plan;
        }
        for drain in plan.all_drains_mut() {
            drain.bake /= self.plan;
            drain.canary_bake /= self.plan;
        }
        for traffic in plan.all_traffic_mut() {
            traffic.bake /= self.plan;
        }
        plan
    }
}
