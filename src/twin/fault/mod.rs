//! Faults: rules on requests and on the world, written as text.
//!
//! ```text
//! RULE      = EFFECT [ "@" TIME ]                   at once when left out
//! TIME      = DURATION                               from this long after the world began
//!           | "drain" [ "+" DURATION ]               from this long after the first node's drain began
//! EFFECT    = KIND [ ":" ARGUMENTS ]                 as [`RequestFaultKind`] and [`WorldChangeKind`] say
//! WHERE     = SERVICE [ ":" OPERATION ]
//! SERVICE   = "eks" | "ec2" | "elb" | "asg" | "cloudformation" | "sts" | "ssm" | "sns" | "k8s" | "*"
//! OPERATION = as the API names it, for Kubernetes VERB RESOURCE such as "PATCH nodes", "WATCH pods",
//!             "POST pods/eviction"; "*" is any text
//! TIMES     = NUMBER | "*"                           "*" is always
//! DURATION  = NUMBER ("ms" | "s" | "m" | "h")
//! NODE      = its name, or its number in the order of names, from 1
//! ```
//!
//! Every rule counts how often it fired, so that one that never did is seen.

use std::time::Duration;

use jiff::SignedDuration;

mod change;
mod kind;
mod stale;

pub use change::{WorldChange, repair_all, repair_all_but_workloads};
pub use kind::{FaultKind, RequestFaultKind, WorldChangeKind};
pub use stale::{RememberedReads, read_key};

use super::aws::InjectedError;
use super::glob::matches_glob;
use super::k8s::workload_state;
use super::world::SimWorld;
use crate::model::marks;
use crate::wire::Request;

/// A rule that cannot be read, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("fault rule `{rule}`: {why}")]
pub struct BadFaultRule {
    pub rule: String,
    pub why: String,
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultRule {
    text: String,
    since: FaultTrigger,
    effect: FaultEffect,
}

/// From when on a rule holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultTrigger {
    /// So long after the world began.
    Start(Duration),
    /// So long after the first node was marked as being drained.
    Drain(Duration),
}

impl FaultRule {
    /// By how much the rule puts the runner's clock off, and how long after the start; none for every other rule.
    pub fn clock_skew(&self) -> Option<(Duration, SignedDuration)> {
        match (&self.effect, self.since) {
            (FaultEffect::World(WorldChange::ClockSkew(by)), FaultTrigger::Start(since)) => {
                Some((since, SignedDuration::from_secs(*by)))
            }
            _ => None,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum FaultEffect {
    Request {
        scope: FaultScope,
        fault: RequestFault,
        left: Option<u32>,
    },
    World(WorldChange),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FaultScope {
    service: String,
    op: String,
}

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RequestFault {
    Refuse(InjectedError),
    Delay(Duration),
    DropBefore,
    DropAfter,
    Stale,
}

const FAULT_SERVICES: &[&str] = &[
    "eks",
    "ec2",
    "elb",
    "asg",
    "cloudformation",
    "sts",
    "ssm",
    "sns",
    "k8s",
    "*",
];

impl std::fmt::Display for FaultRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for FaultRule {
    type Err = BadFaultRule;

    fn from_str(text: &str) -> Result<Self, BadFaultRule> {
        parse_rule(text).map_err(|why| BadFaultRule {
            rule: text.to_owned(),
            why,
        })
    }
}

fn parse_rule(text: &str) -> Result<FaultRule, String> {
    let (body, since) = match text.rsplit_once('@') {
        Some((body, at)) => (body, parse_trigger(at)?),
        None => (text, FaultTrigger::Start(Duration::ZERO)),
    };
    let (kind, rest) = parse_kind(body)?;
    let effect = match kind {
        FaultKind::Request(kind) => parse_request_fault(kind, rest)?,
        FaultKind::Change(kind) => FaultEffect::World(WorldChange::parse_change(kind, rest)?),
    };
    if let (FaultEffect::World(WorldChange::ClockSkew(_)), FaultTrigger::Drain(_)) =
        (&effect, since)
    {
        return Err("a clock is off from a time on, not from the drain".to_owned());
    }
    Ok(FaultRule {
        text: text.to_owned(),
        since,
        effect,
    })
}

/// Reads the kind, and what stands behind its colon.
fn parse_kind(body: &str) -> Result<(FaultKind, &str), String> {
    let Some((name, rest)) = body.split_once(':') else {
        let alone = FaultKind::find(body).filter(|kind| !kind.has_arguments());
        let kind = alone.ok_or("it needs a colon, such as `throttle:eks:DescribeUpdate:3`")?;
        return Ok((kind, ""));
    };
    let kind = FaultKind::find(name).ok_or_else(|| {
        format!(
            "`{name}` is no fault; there are {}",
            FaultKind::list_names()
        )
    })?;
    Ok((kind, rest))
}

fn parse_request_fault(kind: RequestFaultKind, rest: &str) -> Result<FaultEffect, String> {
    let request = |what: RequestFault, rest: &str| -> Result<FaultEffect, String> {
        let (place, times) = rest
            .rsplit_once(':')
            .ok_or("it ends with how often, such as `:1`, or `:*` for always")?;
        Ok(FaultEffect::Request {
            scope: parse_scope(place)?,
            fault: what,
            left: parse_times(times)?,
        })
    };
    // A rule with one more part before how often.
    // A code or a wait stands between the place and the number.
    let with = |rest: &str| -> Result<(String, String), String> {
        let mut parts: Vec<&str> = rest.split(':').collect();
        let (Some(times), Some(part)) = (parts.pop(), parts.pop()) else {
            return Err(format!(
                "`{kind}` needs a service, an operation, one part more and how often"
            ));
        };
        Ok((part.to_owned(), format!("{}:{times}", parts.join(":"))))
    };
    match kind {
        RequestFaultKind::Throttle => request(RequestFault::Refuse(InjectedError::Throttled), rest),
        RequestFaultKind::Fail => request(RequestFault::Refuse(InjectedError::Internal), rest),
        RequestFaultKind::Expired => request(RequestFault::Refuse(InjectedError::Expired), rest),
        RequestFaultKind::Denied => request(RequestFault::Refuse(InjectedError::Denied), rest),
        RequestFaultKind::DropBefore => request(RequestFault::DropBefore, rest),
        RequestFaultKind::DropAfter => request(RequestFault::DropAfter, rest),
        RequestFaultKind::Stale => request(RequestFault::Stale, rest),
        RequestFaultKind::Status => {
            let (code, rest) = with(rest)?;
            let code = code
                .parse()
                .ok()
                .filter(|c| (400..=599).contains(c))
                .ok_or(format!("`{code}` is no HTTP status from 400 to 599"))?;
            request(RequestFault::Refuse(InjectedError::Status(code)), &rest)
        }
        RequestFaultKind::Delay => {
            let (wait, rest) = with(rest)?;
            request(RequestFault::Delay(parse_duration(&wait)?), &rest)
        }
    }
}

fn parse_trigger(text: &str) -> Result<FaultTrigger, String> {
    match text.strip_prefix("drain") {
        Some("") => Ok(FaultTrigger::Drain(Duration::ZERO)),
        Some(after) => match after.strip_prefix('+') {
            Some(after) => Ok(FaultTrigger::Drain(parse_duration(after)?)),
            None => Err(format!("`{text}` is neither `drain` nor `drain+DURATION`")),
        },
        None => Ok(FaultTrigger::Start(parse_duration(text)?)),
    }
}

fn parse_scope(text: &str) -> Result<FaultScope, String> {
    let (service, op) = text.split_once(':').unwrap_or((text, "*"));
    if !FAULT_SERVICES.contains(&service) {
        return Err(format!(
            "`{service}` is no service; there are {}",
            FAULT_SERVICES.join(", ")
        ));
    }
    Ok(FaultScope {
        service: service.to_owned(),
        op: op.to_owned(),
    })
}

fn parse_times(text: &str) -> Result<Option<u32>, String> {
    match text {
        "*" => Ok(None),
        number => number
            .parse()
            .map(Some)
            .map_err(|_| format!("`{number}` is neither a number nor `*`")),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
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
    rules: Vec<(FaultRule, u32)>,
    /// Nothing goes wrong any more.
    over: bool,
    /// How long the world had been going when the first node's drain began.
    drain_began: Option<Duration>,
    /// What reads answered, kept only where a rule wants to answer it again.
    pub remembered: RememberedReads,
}

impl Faults {
    /// Each rule's text and how often it has fired, in the order they were given.
    pub fn fired_counts(&self) -> Vec<(&str, u32)> {
        self.rules
            .iter()
            .map(|(rule, fired)| (rule.text.as_str(), *fired))
            .collect()
    }

    /// Whether a rule may want to answer what was answered before.
    pub fn want_stale_reads(&self) -> bool {
        self.rules.iter().any(|(rule, _)| {
            matches!(&rule.effect, FaultEffect::Request { fault: RequestFault::Stale, left, .. } if *left != Some(0))
        })
    }

    /// Whether nothing goes wrong any more.
    pub fn are_over(&self) -> bool {
        self.over
    }

    /// No rule fires any more.
    pub fn stop_all(&mut self) {
        self.over = true;
        for (rule, _) in &mut self.rules {
            if let FaultEffect::Request { left, .. } = &mut rule.effect {
                *left = Some(0);
            }
        }
    }

    /// What happens to a request, when `passed` since the world began. The first rule that fits fires; one that wants an
    /// old answer fits only where there is one (`known`).
    pub fn fire_for_request(
        &mut self,
        service: &str,
        op: &str,
        passed: Duration,
        known: bool,
    ) -> Option<RequestFault> {
        // The rules are looked at in their order, and the first that fits is used up.
        for (rule, fired) in &mut self.rules {
            let FaultEffect::Request {
                scope: place,
                fault: what,
                left,
            } = &mut rule.effect
            else {
                continue;
            };
            let fits =
                (place.service == "*" || place.service == service) && matches_glob(&place.op, op);
            // A rule that waits for the drain does not fit before it has begun.
            let since = match rule.since {
                FaultTrigger::Start(since) => Some(since),
                FaultTrigger::Drain(after) => self.drain_began.map(|began| began + after),
            };
            if !fits
                || since.is_none_or(|s| passed < s)
                || *left == Some(0)
                || (*what == RequestFault::Stale && !known)
            {
                continue;
            }
            // A rule without a number fits forever.
            *left = left.map(|n| n - 1);
            *fired += 1;
            return Some(what.clone());
        }
        None
    }
}

/// Adds rules to a world; a change of the world happens when its time has come.
pub fn add_rules(world: &mut SimWorld, rules: Vec<FaultRule>) {
    for rule in rules {
        let (since, is_change) = (rule.since, matches!(rule.effect, FaultEffect::World(_)));
        let index = world.faults.rules.len();
        world.faults.rules.push((rule, 0));
        if let (FaultTrigger::Start(since), true) = (since, is_change) {
            let wait = since.saturating_sub(world.elapsed_time());
            if wait.is_zero() {
                apply_change(world, index);
            } else {
                world.schedule_after(wait, super::world::ScheduledEvent::Fault(index));
            }
        }
    }
}

/// A request was served: with the first node that is marked as being drained the rules begin that wait for it.
pub fn on_request_served(world: &mut SimWorld, request: &Request) {
    let waits = |(rule, _): &(FaultRule, u32)| matches!(rule.since, FaultTrigger::Drain(_));
    // A drain begins with a mark on a node, which is a patch; every other request is passed over at once.
    let node = request.uri().path().strip_prefix("/api/v1/nodes/");
    let Some(node) = node.filter(|_| request.method() == http::Method::PATCH) else {
        return;
    };
    if world.faults.drain_began.is_some() || !world.faults.rules.iter().any(waits) {
        return;
    }
    if workload_state::node_annotation(world, node, marks::DRAINING).is_none() {
        return;
    }
    // Rules that wait for the drain are queued from this moment on. Rules on requests look at the time themselves.
    world.faults.drain_began = Some(world.elapsed_time());
    for index in 0..world.faults.rules.len() {
        let (rule, _) = &world.faults.rules[index];
        if let (FaultTrigger::Drain(after), FaultEffect::World(_)) = (rule.since, &rule.effect) {
            world.schedule_after(after, super::world::ScheduledEvent::Fault(index));
        }
    }
}

/// Makes the change of rule number `index` happen; one that finds nothing to change has not fired.
pub fn apply_change(world: &mut SimWorld, index: usize) {
    let Some((rule, _)) = world.faults.rules.get(index) else {
        return;
    };
    let FaultEffect::World(change) = rule.effect.clone() else {
        return;
    };
    if world.faults.over {
        return;
    }
    if change.apply_to(world)
        && let Some((_, fired)) = world.faults.rules.get_mut(index)
    {
        *fired += 1;
    }
}

/// The operation of a request to the API server: VERB RESOURCE.
pub fn kubernetes_operation(request: &Request) -> String {
    let path = request.uri().path();
    let mut parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    // The group and the version are not part of the operation.
    let skip = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        Some(_) | None => 0,
    };
    // A watch is a read with a parameter, and has a verb of its own.
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
    // A path above the objects is an operation of its own.
    if skip == 0 || parts.len() <= skip {
        return format!("{verb} {path}");
    }
    parts.drain(..skip);
    // The namespace is not part of the operation, so a rule holds for all of them.
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
mod tests;
