//! Holds a step back while workloads are short, for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::engine::{Decision, StepRefusal};
use crate::model::ApiError;
use crate::steps::StepWorld;
use crate::steps::drain::timers::StateTimers;
use crate::steps::updates::EKS_POLL_INTERVAL;
use crate::steps::workload_health::{ShortWorkload, describe_short};

/// Since when a step's process has seen workloads short.
#[derive(Debug, Default)]
pub struct WorkloadGate(Mutex<StateTimers>);

/// The workloads that have fewer Ready pods than when the run began, and how long this process has seen that.
#[derive(Debug, Default)]
pub struct Shortage {
    pub workloads: Vec<ShortWorkload>,
    pub lasted: Duration,
}

impl WorkloadGate {
    /// Reads which workloads are short now.
    ///
    /// # Errors
    /// Those of reading pods and workloads.
    pub async fn read_shortage(&self, world: &StepWorld) -> Result<Shortage, ApiError> {
        let workloads = world.short_workloads().await?;
        let so_now = (!workloads.is_empty()).then(|| "short".to_owned());
        let mut timers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lasted = timers.update_all(so_now).into_values().next();
        Ok(Shortage {
            workloads,
            lasted: lasted.unwrap_or_default(),
        })
    }
}

impl Shortage {
    /// Waits while workloads are short, and asks for a person when that has lasted for longer than `patience`; nothing
    /// where all are as they were. `meanwhile`: what does not happen until then.
    pub fn hold_back<A>(&self, patience: Duration, meanwhile: &str) -> Option<Decision<A>> {
        if self.workloads.is_empty() {
            return None;
        }
        let why = format!(
            "{meanwhile} while workloads have fewer Ready pods than when the run began: {}",
            describe_short(&self.workloads)
        );
        Some(if self.lasted > patience {
            Decision::Refuse(
                StepRefusal::new(format!("{why}, for {}s", self.lasted.as_secs()))
                    .with_fix("Fix them")
                    .with_short_workloads(self.workloads.iter().map(|w| w.name.clone()).collect()),
            )
        } else {
            Decision::Wait {
                why,
                recheck: EKS_POLL_INTERVAL,
            }
        })
    }
}
