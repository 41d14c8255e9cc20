//! What a seed's upgrade is and may do: its plan, its route's groups, and the terms that the laws hold it to.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::trial::Trial;
use super::weather::Weather;
use crate::model::Clock;
use crate::plan::{BudgetConsent, OnDeadline, Plan, SingleReplicas, Strategy};
use crate::route::{Route, ShiftSpec, StepSpec};
use crate::twin::fault;
use crate::twin::laws::Terms;

impl Trial<'_> {
    /// The groups that the plan makes.
    pub fn greens(&self) -> Result<Vec<String>, String> {
        Ok(greens_of(&self.route(&self.wish.plan)?))
    }

    /// The route of a plan. A snapshot's own inventory is enough to draw it from.
    fn route(&self, plan: &Plan) -> Result<Route, String> {
        let route = crate::route::build(plan, &self.snapshot.inventory);
        route.map_err(|problems| format!("no route: {problems:?}"))
    }

    /// The plan of a seed; a saved one is carried as it was saved.
    pub(super) fn plan_of(&self, weather: &Weather) -> Plan {
        match self.wish.saved {
            None => weather
                .variation
                .of_plan(weather.pace.shorten(&self.wish.plan)),
            Some(_) => self.wish.plan.clone(),
        }
    }

    /// What the plan lets the upgrade do.
    pub(super) fn terms(&self, plan: &Plan) -> Result<Terms, String> {
        let route = self.route(plan)?;
        let blues = &self.snapshot.inventory.nodegroups;
        let mut groups: BTreeSet<String> = greens_of(&route).into_iter().collect();
        groups.extend(blues.iter().map(|g| g.name.clone()));
        let shifts = |f: fn(&ShiftSpec) -> &String| -> BTreeSet<String> {
            let shifts = route.steps.iter().filter_map(|step| match &step.spec {
                StepSpec::Shift { shift, .. } => Some(f(shift).clone()),
                _ => None,
            });
            shifts.collect()
        };
        // On a long way a target group may be green first and blue later; of such a one nothing is said.
        let green_targets = &shifts(|s| &s.green) - &shifts(|s| &s.blue);
        Ok(Terms {
            groups,
            may_delete_pods: plan.drain.on_deadline == OnDeadline::Delete
                || plan.strategy == Strategy::Recreate
                || plan.drain.single_replicas == SingleReplicas::Evict
                || (plan.drain.budgets.values()).any(|c| *c == BudgetConsent::Delete),
            single_replicas_down: plan.drain.single_replicas == SingleReplicas::Evict,
            surge: plan.drain.single_replicas == SingleReplicas::Surge,
            parallel: plan.drain.parallel,
            pod_deadline: plan.drain.pod_deadline,
            downtime: plan.strategy == Strategy::Recreate,
            green_targets,
        })
    }
}

fn greens_of(route: &Route) -> Vec<String> {
    let greens = route.steps.iter().filter_map(|step| match &step.spec {
        StepSpec::CreateGreen { group, .. } => Some(group.name.clone()),
        _ => None,
    });
    greens.collect()
}

/// The runner's clock, as far off the world's as the rules say.
pub fn skewed_clock(start: jiff::Timestamp, rules: &[fault::Rule]) -> Clock {
    let clock = Clock::starting_at(start);
    for (since, by) in rules.iter().filter_map(fault::Rule::clock_skew) {
        if since.is_zero() {
            clock.leap(by);
            continue;
        }
        let clock = clock.clone();
        tokio::spawn(async move {
            sleep(since).await;
            clock.leap(by);
        });
    }
    clock
}
