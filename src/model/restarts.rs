//! Whether a restart of a Deployment moves its only pod without a gap.

use super::kube::Workload;

/// Why a restart of the Deployment would not bring up the new pod before it takes the old one. `claims`: its pods mount
/// volumes.
pub fn no_restart(deployment: &Workload, claims: bool) -> Option<String> {
    let key = &deployment.key;
    let unavailable = deployment.max_unavailable.as_deref().unwrap_or("25%");
    if deployment.strategy.as_deref() == Some("Recreate") {
        Some(format!("Deployment {key} has strategy Recreate"))
    } else if deployment.paused {
        Some(format!("Deployment {key} is paused"))
    } else if matches!(deployment.max_surge.as_deref(), Some("0" | "0%")) {
        Some(format!("Deployment {key} has maxSurge 0"))
    } else if rounded_down(unavailable, deployment.desired) > 0 {
        Some(format!(
            "Deployment {key} has maxUnavailable {unavailable}: a restart may end the old pod first"
        ))
    } else if let Some(owner) = &deployment.owner {
        Some(format!(
            "Deployment {key} belongs to {} {}, which may undo a restart",
            owner.kind, owner.name
        ))
    } else if claims {
        Some("it mounts a volume that two pods may not share".to_owned())
    } else {
        None
    }
}

/// A number, or a share of `of` rounded down, as the Deployment controller reads maxUnavailable.
fn rounded_down(number_or_percent: &str, of: i32) -> i32 {
    let number = |text: &str| text.parse::<i32>().unwrap_or(0);
    match number_or_percent.strip_suffix('%') {
        Some(percent) => number(percent) * of / 100,
        None => number(number_or_percent),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::drain::fixtures::shop_workload;

    #[test]
    fn a_deployment_that_may_end_the_old_pod_first_is_not_restarted() {
        let with = |unavailable: Option<&str>| {
            let mut deployment = shop_workload("Deployment", "web", None, 1);
            deployment.max_unavailable = unavailable.map(str::to_owned);
            no_restart(&deployment, false)
        };
        assert_eq!(with(None), None);
        assert_eq!(with(Some("25%")), None);
        assert_eq!(with(Some("0")), None);
        assert!(with(Some("1")).is_some_and(|why| why.contains("maxUnavailable 1")));
        assert!(with(Some("100%")).is_some());
    }

    #[test]
    fn a_deployment_of_an_operator_is_not_restarted() {
        let owned = shop_workload("Deployment", "web", Some("web-operator"), 1);
        assert!(no_restart(&owned, false).is_some_and(|why| why.contains("web-operator")));
    }
}
