//! The grammar of fault rules, and when they fire.

use super::*;

fn rule(text: &str) -> FaultRule {
    text.parse().unwrap()
}

#[test]
fn every_example_of_the_grammar_is_read() {
    for text in [
        "throttle:eks:DescribeUpdate:3",
        "fail:elb:ModifyRule:1",
        "drop-after:eks:CreateNodegroup:1",
        "drop-before:k8s:POST pods/eviction:2",
        "delay:k8s:*:2s:5",
        "expired:*:1",
        "denied:asg:*",
        "status:k8s:PATCH nodes:500:2",
        "throttle:eks:*:*@10m",
        "node-never-joins:1",
        "insufficient-capacity:us-east-1b@90s",
        "image-missing:expense/frontend",
        "kubelet-dies:1@5m",
        "control-plane-fails:IpNotAvailable",
        "stale:eks:DescribeNodegroup:2",
        "pod-never-ready:expense/backend",
        "pods-fail-on:expense-green@2h",
        "no-images-on:expense-green",
        "budget:expense/backend:3@20m",
        "cordon:2@5m",
        "uncordon:ip-10-0-0-4.ec2.internal",
        "scale:expense-blue:+1@30m",
        "scale:expense-blue:-1",
        "weights:expense-green-tg:7@1h",
        "delete-group:expense-green@1h",
        "karpenter:2@10m",
        "api-server-gone:4m@3m",
        "autoscaler:10m",
        "min-size:expense-blue:1",
        "watches-cut@90s",
        "history-lost",
        "credentials-expire:20m@1h",
        "image-missing:expense/redis@drain",
        "crash-loop:expense/backend@drain+30s",
        "workload-fixed:expense/backend@drain+10m",
        "clock-skew:+90s",
        "clock-skew:-5m@1h",
        "operator-down:StrimziPodSet@10m",
        "operator-back:StrimziPodSet@20m",
        "eviction-half-done:2@drain",
        "throttle:k8s:*:3@drain+1m",
    ] {
        assert!(
            text.parse::<FaultRule>().is_ok(),
            "{text}: {:?}",
            text.parse::<FaultRule>()
        );
    }
}

#[test]
fn a_rule_that_cannot_be_read_says_what_to_write() {
    for (text, says) in [
        ("throttle", "colon"),
        ("explode:eks:*:1", "there are throttle"),
        ("throttle:rds:*:1", "no service"),
        ("throttle:eks:DescribeUpdate:often", "neither a number"),
        ("status:eks:DescribeUpdate:200:1", "HTTP status"),
        ("delay:eks:DescribeUpdate:2parsecs:1", "no duration"),
        ("fail:eks:*:1@soon", "no duration"),
        ("image-missing:frontend", "NAMESPACE/WORKLOAD"),
        ("scale:blue:2", "+N or -N"),
        ("budget:expense/backend", "NUMBER"),
        ("weights:tg:-1", "weight"),
        ("watches-cut:now", "nothing after it"),
        ("clock-skew:90s", "+DURATION"),
        ("clock-skew:+90s@drain", "not from the drain"),
        ("image-missing:a/b@drained", "drain+DURATION"),
    ] {
        let error = text.parse::<FaultRule>().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_rule_fires_as_often_as_it_says_and_from_when_it_says() {
    let mut faults = Faults {
        rules: vec![(rule("fail:eks:Describe*:2@10s"), 0)],
        ..Faults::default()
    };
    let second = Duration::from_secs;
    assert_eq!(
        faults.fire_for_request("eks", "DescribeCluster", second(9), false),
        None
    );
    assert_eq!(
        faults.fire_for_request("elb", "DescribeRules", second(10), false),
        None
    );
    assert!(
        faults
            .fire_for_request("eks", "DescribeCluster", second(10), false)
            .is_some()
    );
    assert!(
        faults
            .fire_for_request("eks", "DescribeUpdate", second(11), false)
            .is_some()
    );
    assert_eq!(
        faults.fire_for_request("eks", "DescribeCluster", second(12), false),
        None
    );
    assert_eq!(faults.fired_counts(), [("fail:eks:Describe*:2@10s", 2)]);
}

#[test]
fn a_stale_answer_needs_an_earlier_one() {
    let mut faults = Faults {
        rules: vec![(rule("stale:eks:*:1"), 0)],
        ..Faults::default()
    };
    assert!(faults.want_stale_reads());
    assert_eq!(
        faults.fire_for_request("eks", "DescribeCluster", Duration::ZERO, false),
        None
    );
    assert_eq!(
        faults.fire_for_request("eks", "DescribeCluster", Duration::ZERO, true),
        Some(RequestFault::Stale)
    );
    assert!(
        !faults.want_stale_reads(),
        "it has fired as often as it may"
    );
}

#[test]
fn requests_to_kubernetes_are_named_by_verb_and_resource() {
    let op = |method: &str, uri: &str| {
        kubernetes_operation(
            &http::Request::builder()
                .method(method)
                .uri(uri)
                .body(bytes::Bytes::new())
                .unwrap(),
        )
    };
    assert_eq!(op("PATCH", "https://x/api/v1/nodes/n1"), "PATCH nodes");
    assert_eq!(
        op("GET", "https://x/api/v1/pods?watch=true&a=b"),
        "WATCH pods"
    );
    assert_eq!(
        op("POST", "https://x/api/v1/namespaces/a/pods/b/eviction"),
        "POST pods/eviction"
    );
    assert_eq!(
        op("GET", "https://x/apis/apps/v1/namespaces/a/deployments"),
        "GET deployments"
    );
    assert_eq!(op("GET", "https://x/api/v1/namespaces/a"), "GET namespaces");
    assert_eq!(op("GET", "https://x/version"), "GET /version");
}
