//! What green's Auto Scaling group gets from blue's beside its sizes. Pure.

use crate::model::asg::{self, Asg, AsgTag, CARRIED_SUSPENSIONS};
use crate::model::marks;

/// Processes that somebody else suspended for blue's group, and that green's can do without while it is made and filled.
pub fn missing_suspensions(tags: &[AsgTag], suspended: &[String], green: &Asg) -> Vec<String> {
    let carried = |p: &&String| {
        CARRIED_SUSPENSIONS.contains(&p.as_str()) && !asg::is_suspended_by_run(tags, p)
    };
    let missing = suspended.iter().filter(carried);
    missing
        .filter(|p| !green.suspended.contains(p))
        .cloned()
        .collect()
}

/// Whether green's group lacks a metric that blue's sends to CloudWatch.
pub fn lacks_metrics(metrics: &[String], green: &Asg) -> bool {
    metrics.iter().any(|m| !green.metrics.contains(m))
}

/// Tags of blue's Auto Scaling group that EKS does not set by itself and green's lacks.
pub fn missing_tags(blue: &[AsgTag], green: &Asg) -> Vec<AsgTag> {
    let owned = |k: &str| {
        k.starts_with("aws:")
            || k.starts_with("eks:")
            || k.starts_with("kubernetes.io/cluster/")
            || k.starts_with("k8s.io/cluster/")
            || k == "k8s.io/cluster-autoscaler/enabled"
            || marks::SUSPENDED_PROCESSES.iter().any(|(_, tag)| k == *tag)
    };
    blue.iter()
        .filter(|t| !owned(&t.key) && !green.tags.iter().any(|g| g.key == t.key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_users_own_asg_tags_are_copied() {
        let tag = |k: &str| AsgTag {
            key: k.into(),
            value: "v".into(),
            propagate: true,
        };
        let blue = [
            tag("eks:nodegroup-name"),
            tag("k8s.io/cluster-autoscaler/c"),
            tag("k8s.io/cluster-autoscaler/of-team-x"),
            tag("k8s.io/cluster-autoscaler/node-template/label/x"),
            tag("team"),
        ];
        let green = Asg {
            name: "g".into(),
            min: 0,
            max: 1,
            desired: 1,
            zones: vec![],
            instances: vec![],
            target_groups: vec![],
            load_balancers: vec![],
            arn: None,
            suspended: vec![],
            // EKS has put its own there.
            tags: vec![tag("k8s.io/cluster-autoscaler/c")],
            ..Asg::default()
        };
        let missing: Vec<String> = missing_tags(&blue, &green)
            .into_iter()
            .map(|t| t.key)
            .collect();
        assert_eq!(
            missing,
            [
                "k8s.io/cluster-autoscaler/of-team-x",
                "k8s.io/cluster-autoscaler/node-template/label/x",
                "team"
            ]
        );
    }

    #[test]
    fn green_sends_the_metrics_that_blue_sends_and_keeps_its_own() {
        let names = ["GroupDesiredCapacity", "GroupTotalInstances"].map(str::to_owned);
        let mut green = Asg {
            metrics: vec!["GroupMinSize".to_owned(), names[0].clone()],
            ..Asg::default()
        };
        assert!(lacks_metrics(&names, &green));
        green.metrics.push(names[1].clone());
        assert!(!lacks_metrics(&names, &green));
        assert!(!lacks_metrics(&[], &green));
    }

    #[test]
    fn what_the_team_suspended_for_blue_is_suspended_for_green_and_what_eksup_did_is_not() {
        let mut green = Asg {
            name: "g".into(),
            min: 0,
            max: 1,
            desired: 1,
            zones: vec![],
            instances: vec![],
            target_groups: vec![],
            load_balancers: vec![],
            arn: None,
            suspended: vec![],
            tags: vec![],
            ..Asg::default()
        };
        let suspended = ["AZRebalance", "Launch", "ScheduledActions"].map(str::to_owned);
        let ours = [AsgTag {
            key: marks::AZ_REBALANCE_TAG.into(),
            value: "run".into(),
            propagate: false,
        }];
        assert_eq!(
            missing_suspensions(&[], &suspended, &green),
            ["AZRebalance", "ScheduledActions"]
        );
        assert_eq!(
            missing_suspensions(&ours, &suspended, &green),
            ["ScheduledActions"]
        );
        green.suspended = suspended.to_vec();
        assert!(missing_suspensions(&[], &suspended, &green).is_empty());
    }
}
