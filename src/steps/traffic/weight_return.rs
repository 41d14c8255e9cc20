//! How much of the traffic blue can take in a rollback, by what its targets and green's are now.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::health::{ServingState, count_health, judge_serving};
use crate::model::aws_status::TargetState;
use crate::model::elb::TargetHealth;

/// Blue's targets turn healthy within a few checks of each other. When none has for this long, those that are healthy
/// are all there will be for now.
const BLUE_STEADY_AFTER: Duration = Duration::from_secs(60);

/// What share of the traffic goes to blue now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlueShare {
    /// No target of blue is healthy.
    None,
    /// Blue is not judged yet, and green serves meanwhile.
    Unjudged,
    /// So many percent, for the targets that are healthy now.
    Part(u32),
    All,
}

/// Says what share blue takes. `least`: the percent of healthy targets that is enough for all of it; `steady`: no target
/// of blue has turned healthy for a while.
pub fn judge_blue_share(
    blue: &[TargetHealth],
    green: &[TargetHealth],
    least: u32,
    steady: bool,
) -> BlueShare {
    let counts = count_health(blue);
    let judged = blue.iter().all(|t| t.state != TargetState::Initial);
    // No weight is ever raised on a target group without a healthy target (ELB-3).
    if counts.healthy == 0 {
        return BlueShare::None;
    }
    // What is left on a green that serves nothing is lost, so blue's last targets are not waited for.
    if !judged && judge_serving(green) != ServingState::No {
        return BlueShare::Unjudged;
    }
    // Where no more targets turn healthy, waiting for the plan's percentage would leave traffic on green forever.
    if counts.healthy_percent() >= least || (steady && judged) {
        return BlueShare::All;
    }
    BlueShare::Part(counts.healthy_percent().max(1))
}

/// Remembers since when blue has had as many healthy targets as it has. A restart loses it, and the time counts again.
#[derive(Default)]
pub struct BlueWatch(Mutex<Option<(usize, Instant)>>);

impl BlueWatch {
    /// Notes how many are healthy now; whether it has been no more for a while.
    pub fn is_steady(&self, blue: &[TargetHealth]) -> bool {
        let healthy = count_health(blue).healthy;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *known {
            Some((most, since)) if healthy <= most => since.elapsed() >= BLUE_STEADY_AFTER,
            Some(_) | None => {
                *known = Some((healthy, Instant::now()));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(states: &[&str]) -> Vec<TargetHealth> {
        let target = |(i, state): (usize, &&str)| TargetHealth {
            id: format!("i-{i}"),
            port: None,
            zone: None,
            state: (*state).into(),
            reason: None,
        };
        states.iter().enumerate().map(target).collect()
    }

    fn share(blue: &[&str], green: &[&str], least: u32, steady: bool) -> BlueShare {
        judge_blue_share(&targets(blue), &targets(green), least, steady)
    }

    #[test]
    fn blue_without_a_healthy_target_gets_nothing_however_long_it_lasts() {
        for green in [&["healthy"], &["unhealthy"]] {
            for blue in [
                &["unhealthy", "initial"][..],
                &[],
                &["unused"],
                &["draining"],
            ] {
                assert_eq!(share(blue, green, 1, true), BlueShare::None);
            }
        }
    }

    #[test]
    fn a_whole_blue_gets_all_of_it_and_a_part_gets_its_part_until_no_more_comes() {
        let dead = ["unhealthy", "unhealthy"];
        assert_eq!(
            share(&["healthy", "healthy"], &dead, 100, false),
            BlueShare::All
        );
        let part = ["healthy", "unhealthy", "unhealthy"];
        assert_eq!(share(&part, &dead, 100, false), BlueShare::Part(33));
        assert_eq!(share(&part, &dead, 100, true), BlueShare::All);
        assert_eq!(share(&part, &dead, 1, false), BlueShare::All);
    }

    #[test]
    fn targets_that_are_not_judged_yet_are_waited_for_only_while_green_serves() {
        let blue = ["healthy", "initial"];
        assert_eq!(share(&blue, &["healthy"], 1, true), BlueShare::Unjudged);
        assert_eq!(share(&blue, &["initial"], 1, true), BlueShare::Unjudged);
        assert_eq!(share(&blue, &["unhealthy"], 100, true), BlueShare::Part(50));
        assert_eq!(share(&blue, &[], 50, false), BlueShare::All);
    }

    #[tokio::test(start_paused = true)]
    async fn blue_is_steady_when_no_target_has_turned_healthy_for_a_minute() {
        let watch = BlueWatch::default();
        assert!(!watch.is_steady(&targets(&["healthy", "initial"])));
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(!watch.is_steady(&targets(&["healthy", "healthy"])));
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert!(!watch.is_steady(&targets(&["healthy", "unhealthy"])));
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(watch.is_steady(&targets(&["healthy", "healthy"])));
    }
}
