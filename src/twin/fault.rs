//! Faults: rules on requests and on the world, written as text.
//!
//! ```text
//! RULE      = EFFECT [ "@" DURATION ]               from this long after the world began; at once when left out
//! EFFECT    = "throttle"    ":" WHERE ":" TIMES      429 or the service's own words for it
//!           | "fail"        ":" WHERE ":" TIMES      500
//!           | "expired"     ":" WHERE ":" TIMES      expired credentials; 401 from Kubernetes
//!           | "denied"      ":" WHERE ":" TIMES      403
//!           | "status"      ":" WHERE ":" CODE ":" TIMES
//!           | "delay"       ":" WHERE ":" DURATION ":" TIMES   takes effect at once, answers late
//!           | "drop-before" ":" WHERE ":" TIMES      the connection breaks, nothing happened
//!           | "drop-after"  ":" WHERE ":" TIMES      it happened, the connection breaks, no answer
//!           | "node-never-joins"      ":" NUMBER     the next NUMBER instances run but never join the cluster
//!           | "insufficient-capacity" ":" ZONE       no instance can be had in the zone
//!           | "capacity-back"         ":" ZONE       and now it can
//!           | "no-free-addresses"     ":" ZONE       the zone's subnets are full
//!           | "control-plane-fails"   ":" CODE       the next control-plane update fails, such as IpNotAvailable
//!           | "image-missing"         ":" NAMESPACE "/" WORKLOAD   its new pods cannot pull their image
//!           | "kubelet-dies"          ":" NODE       by name, or by number in the order of names, from 1
//! WHERE     = SERVICE [ ":" OPERATION ]
//! SERVICE   = "eks" | "ec2" | "elb" | "asg" | "sts" | "ssm" | "sns" | "k8s" | "*"
//! OPERATION = as the API names it, for Kubernetes VERB RESOURCE such as "PATCH nodes", "WATCH pods",
//!             "POST pods/eviction"; "*" is any text
//! TIMES     = NUMBER | "*"                           "*" is always
//! DURATION  = NUMBER ("ms" | "s" | "m" | "h")
//! ```
//!
//! Every rule counts how often it fired, so that one that never did is seen.

use std::time::Duration;

use super::aws::{self, Refusal};
use super::glob::like;
use super::world::World;
use crate::wire::Request;

/// A rule that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault rule `{rule}`: {why}")]
pub struct BadRule {
    pub rule: String,
    pub why: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    text: String,
    since: Duration,
    effect: Effect,
}

#[derive(Clone, Debug, PartialEq)]
enum Effect {
    Request {
        place: Place,
        what: What,
        left: Option<u32>,
    },
    World(Change),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    service: String,
    op: String,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    Refuse(Refusal),
    Delay(Duration),
    DropBefore,
    DropAfter,
}

/// What happens to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    NodesNeverJoin(u32),
    NoCapacity(String),
    CapacityBack(String),
    NoAddresses(String),
    ControlPlaneFails(String),
    ImageMissing { namespace: String, workload: String },
    KubeletDies(String),
}

const SERVICES: &[&str] = &["eks", "ec2", "elb", "asg", "sts", "ssm", "sns", "k8s", "*"];

impl std::str::FromStr for Rule {
    type Err = BadRule;

    fn from_str(text: &str) -> Result<Self, BadRule> {
        read(text).map_err(|why| BadRule {
            rule: text.to_owned(),
            why,
        })
    }
}

fn read(text: &str) -> Result<Rule, String> {
    let (body, since) = match text.rsplit_once('@') {
        Some((body, at)) => (body, duration(at)?),
        None => (text, Duration::ZERO),
    };
    let (kind, rest) = body
        .split_once(':')
        .ok_or("it needs a colon, such as `throttle:eks:DescribeUpdate:3`")?;
    let request = |what: What, rest: &str| -> Result<Effect, String> {
        let (place, times) = rest
            .rsplit_once(':')
            .ok_or("it ends with how often, such as `:1`, or `:*` for always")?;
        Ok(Effect::Request {
            place: place_of(place)?,
            what,
            left: times_of(times)?,
        })
    };
    // A rule with one more part before how often.
    let with = |rest: &str| -> Result<(String, String), String> {
        let mut parts: Vec<&str> = rest.split(':').collect();
        let (Some(times), Some(part)) = (parts.pop(), parts.pop()) else {
            return Err(format!(
                "`{kind}` needs a service, an operation, one part more and how often"
            ));
        };
        Ok((part.to_owned(), format!("{}:{times}", parts.join(":"))))
    };
    let named = |what: &str| {
        if rest.is_empty() {
            Err(format!("`{kind}` needs {what}"))
        } else {
            Ok(rest.to_owned())
        }
    };
    let effect = match kind {
        "throttle" => request(What::Refuse(Refusal::Throttled), rest)?,
        "fail" => request(What::Refuse(Refusal::Internal), rest)?,
        "expired" => request(What::Refuse(Refusal::Expired), rest)?,
        "denied" => request(What::Refuse(Refusal::Denied), rest)?,
        "drop-before" => request(What::DropBefore, rest)?,
        "drop-after" => request(What::DropAfter, rest)?,
        "status" => {
            let (code, rest) = with(rest)?;
            let code = code
                .parse()
                .ok()
                .filter(|c| (400..=599).contains(c))
                .ok_or(format!("`{code}` is no HTTP status from 400 to 599"))?;
            request(What::Refuse(Refusal::Status(code)), &rest)?
        }
        "delay" => {
            let (wait, rest) = with(rest)?;
            request(What::Delay(duration(&wait)?), &rest)?
        }
        "node-never-joins" => Effect::World(Change::NodesNeverJoin(
            rest.parse()
                .map_err(|_| format!("`{rest}` is no number of nodes"))?,
        )),
        "insufficient-capacity" => Effect::World(Change::NoCapacity(named("a zone")?)),
        "capacity-back" => Effect::World(Change::CapacityBack(named("a zone")?)),
        "no-free-addresses" => Effect::World(Change::NoAddresses(named("a zone")?)),
        "control-plane-fails" => Effect::World(Change::ControlPlaneFails(named("an error code")?)),
        "kubelet-dies" => Effect::World(Change::KubeletDies(named("a node")?)),
        "image-missing" => {
            let (namespace, workload) =
                rest.split_once('/').ok_or("it needs NAMESPACE/WORKLOAD")?;
            Effect::World(Change::ImageMissing {
                namespace: namespace.to_owned(),
                workload: workload.to_owned(),
            })
        }
        other => {
            return Err(format!(
                "`{other}` is no fault; there are throttle, fail, expired, denied, status, delay, drop-before, drop-after, node-never-joins, insufficient-capacity, capacity-back, no-free-addresses, control-plane-fails, image-missing and kubelet-dies"
            ));
        }
    };
    Ok(Rule {
        text: text.to_owned(),
        since,
        effect,
    })
}

fn place_of(text: &str) -> Result<Place, String> {
    let (service, op) = text.split_once(':').unwrap_or((text, "*"));
    if !SERVICES.contains(&service) {
        return Err(format!(
            "`{service}` is no service; there are {}",
            SERVICES.join(", ")
        ));
    }
    Ok(Place {
        service: service.to_owned(),
        op: op.to_owned(),
    })
}

fn times_of(text: &str) -> Result<Option<u32>, String> {
    match text {
        "*" => Ok(None),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| format!("`{number}` is neither a number nor `*`")),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(format!(
                "`{text}` is no duration such as 500ms, 90s, 10m or 2h"
            ));
        }
    };
    number
        .parse::<u64>()
        .map(|n| Duration::from_millis(n.saturating_mul(unit)))
        .map_err(|_| format!("`{text}` is no duration such as 500ms, 90s, 10m or 2h"))
}

/// The rules of a world, and how often each has fired.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    rules: Vec<(Rule, u32)>,
}

impl Faults {
    /// Each rule's text and how often it has fired, in the order they were given.
    pub fn fired(&self) -> Vec<(&str, u32)> {
        self.rules
            .iter()
            .map(|(rule, fired)| (rule.text.as_str(), *fired))
            .collect()
    }

    /// What happens to a request, when `passed` since the world began. The first rule that fits fires.
    pub fn meet(&mut self, service: &str, op: &str, passed: Duration) -> Option<What> {
        for (rule, fired) in &mut self.rules {
            let Effect::Request { place, what, left } = &mut rule.effect else {
                continue;
            };
            let fits = (place.service == "*" || place.service == service) && like(&place.op, op);
            if !fits || passed < rule.since || *left == Some(0) {
                continue;
            }
            *left = left.map(|n| n - 1);
            *fired += 1;
            return Some(what.clone());
        }
        None
    }
}

/// Adds rules to a world; a change of the world happens when its time has come.
pub fn add(world: &mut World, rules: Vec<Rule>) {
    for rule in rules {
        let (since, is_change) = (rule.since, matches!(rule.effect, Effect::World(_)));
        let index = world.faults.rules.len();
        world.faults.rules.push((rule, 0));
        if is_change {
            let wait = since.saturating_sub(world.passed());
            if wait.is_zero() {
                happen(world, index);
            } else {
                world.after(wait, super::world::Due::Fault(index));
            }
        }
    }
}

/// Makes the change of rule number `index` happen.
pub fn happen(world: &mut World, index: usize) {
    let Some((rule, fired)) = world.faults.rules.get_mut(index) else {
        return;
    };
    let Effect::World(change) = rule.effect.clone() else {
        return;
    };
    *fired += 1;
    aws::change(world, &change);
}

/// The operation of a request to the API server: VERB RESOURCE.
pub fn kubernetes_op(request: &Request) -> String {
    let path = request.uri().path();
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let skip = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        Some(_) | None => 0,
    };
    let watch = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .any(|p| p == "watch=true" || p == "watch=1");
    let verb = if watch {
        "WATCH"
    } else {
        request.method().as_str()
    };
    if skip == 0 || parts.len() <= skip {
        return format!("{verb} {path}");
    }
    parts.drain(..skip);
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let resource = parts.first().copied().unwrap_or_default();
    match parts.get(2) {
        Some(sub) => format!("{verb} {resource}/{sub}"),
        None => format!("{verb} {resource}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Rule {
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
        ] {
            assert!(
                text.parse::<Rule>().is_ok(),
                "{text}: {:?}",
                text.parse::<Rule>()
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
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_rule_fires_as_often_as_it_says_and_from_when_it_says() {
        let mut faults = Faults {
            rules: vec![(rule("fail:eks:Describe*:2@10s"), 0)],
        };
        let second = Duration::from_secs;
        assert_eq!(faults.meet("eks", "DescribeCluster", second(9)), None);
        assert_eq!(faults.meet("elb", "DescribeRules", second(10)), None);
        assert!(faults.meet("eks", "DescribeCluster", second(10)).is_some());
        assert!(faults.meet("eks", "DescribeUpdate", second(11)).is_some());
        assert_eq!(faults.meet("eks", "DescribeCluster", second(12)), None);
        assert_eq!(faults.fired(), [("fail:eks:Describe*:2@10s", 2)]);
    }

    #[test]
    fn requests_to_kubernetes_are_named_by_verb_and_resource() {
        let op = |method: &str, uri: &str| {
            kubernetes_op(
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
}
