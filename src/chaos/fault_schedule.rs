//! What a seed brings: faults on requests, other people's changes, and how each process ends before its time.

use std::time::Duration;

use super::fault_targets::FaultTargets;
use super::stack_faults;
pub use super::trial_speed::TrialSpeed;
use super::variation::Variation;
use crate::twin::fault::{self, FaultRule, RequestFaultKind, WorldChangeKind};
use crate::twin::world::SimWorld;

/// How a process fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessFault {
    /// It goes as far as it can.
    Survives,
    /// It dies with this request, counted from its start: before it is sent, or before it is answered.
    Dies { request: u64, answered: bool },
    /// The same, counted in records of the journal.
    DiesAtRecord { record: u64, answered: bool },
    /// It is asked to stop, after this long, once or twice.
    StopRequested { after: Duration, twice: bool },
    /// It is frozen, with its connections, from here for so long; meanwhile another process is started.
    Suspended { after: Duration, lasts: Duration },
    /// Somebody starts a second process beside it.
    Contested { after: Duration },
    /// The machine's clock jumps.
    ClockJumps { after: Duration, seconds: i64 },
}

/// What a seed lets go wrong, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct FaultSchedule {
    pub seed: u64,
    /// What tells it from others: the seed, or the record of a crash.
    pub number: u64,
    pub speed: TrialSpeed,
    /// Fault rules, as `--fault` takes them.
    pub rules: Vec<FaultRule>,
    /// How the first processes fare; those after them live.
    pub process_faults: Vec<ProcessFault>,
    /// After so many processes somebody rolls the run back.
    pub rolls_back_after: Option<usize>,
    /// Whoever rolls it back takes the control plane back too, where EKS still can.
    pub rolls_versions_back: bool,
    /// Whether somebody else changes something that shows in the end.
    pub has_external_changes: bool,
    /// How the plan and the cluster differ from those that were given.
    pub variation: Variation,
}

/// Where requests fail: the whole of a service, or one operation.
const FAILING_OPERATIONS: &[&str] = &[
    "*",
    "eks:*",
    "elb:*",
    "asg:*",
    "ec2:*",
    "k8s:*",
    "eks:DescribeCluster",
    "eks:UpdateClusterVersion",
    "eks:DescribeUpdate",
    "eks:ListUpdates",
    "eks:CreateNodegroup",
    "eks:DescribeNodegroup",
    "eks:UpdateNodegroupConfig",
    "eks:DeleteNodegroup",
    "eks:DescribeAddon",
    "eks:UpdateAddon",
    "elb:ModifyRule",
    "elb:DescribeRules",
    "elb:DescribeTargetHealth",
    "asg:DescribeAutoScalingGroups",
    "asg:AttachTrafficSources",
    "asg:DetachTrafficSources",
    "asg:SuspendProcesses",
    "asg:ResumeProcesses",
    "asg:CreateOrUpdateTags",
    "k8s:GET /version",
    "k8s:GET nodes",
    "k8s:GET pods",
    "k8s:GET configmaps",
    "k8s:GET leases",
    "k8s:PATCH nodes",
    "k8s:POST pods/eviction",
    "k8s:PATCH configmaps",
    "k8s:PUT leases",
    "k8s:WATCH pods",
    "k8s:WATCH nodes",
    "k8s:GET volumeattachments",
];

/// Reads of AWS that may show what was.
const STALE_READS: &[&str] = &[
    "eks:DescribeCluster",
    "eks:DescribeUpdate",
    "eks:DescribeNodegroup",
    "eks:DescribeAddon",
    "eks:ListNodegroups",
    "elb:DescribeRules",
    "elb:DescribeTargetHealth",
    "asg:DescribeAutoScalingGroups",
    "eks:*",
    "elb:*",
    "asg:*",
];

impl FaultSchedule {
    /// Draws the schedule of a seed.
    pub fn for_seed(seed: u64, targets: &FaultTargets) -> Self {
        // The seed is spread over all bits, since neighbouring seeds would begin alike.
        let mut rng = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5eed);
        let speed = TrialSpeed::from_rng(&mut rng);
        let (texts, meddled) = draw_rules(&mut rng, targets, speed.expected_seconds());
        // Each part draws in this order. A part that draws more would change all that follow it, so new parts draw
        // from a generator of their own.
        let fates = (0..draw_count(&mut rng, 6))
            .map(|_| draw_process_fault(&mut rng, speed.expected_seconds()));
        let fates: Vec<ProcessFault> = fates.collect();
        // In some trials somebody rolls the run back while it still has processes to come.
        let turns_back_after = (rng.u8(..) < 40).then(|| rng.usize(1..=fates.len().max(1)));
        let autoscaler = draw_autoscaler_rules(&mut rng, targets);
        let meddled = meddled || !autoscaler.is_empty();
        let variation = Variation::for_seed(seed, &targets.workloads, &targets.operators);
        let provided = (targets.provided).draw_rules(seed, &targets.workloads, speed);
        // Every rule is made of parts the grammar knows; a test holds that.
        let texts = autoscaler.iter().chain(&texts).chain(&variation.rules);
        let stacks = stack_faults::draw_rules(&targets.stacks, seed, speed);
        let texts = texts.chain(&provided).chain(&stacks);
        let rules = texts.filter_map(|text| text.parse().ok()).collect();
        Self {
            seed,
            number: seed,
            speed,
            rules,
            process_faults: fates,
            rolls_back_after: turns_back_after,
            rolls_versions_back: fastrand::Rng::with_seed(seed ^ 0xc0de).bool(),
            has_external_changes: meddled,
            variation,
        }
    }

    /// Nothing but a death with this record of the journal: before it is written, or before that is known.
    pub fn crash_at_record(record: u64, answered: bool) -> Self {
        Self {
            number: record,
            speed: TrialSpeed::FASTEST,
            process_faults: vec![ProcessFault::DiesAtRecord { record, answered }],
            ..Self::baseline(1)
        }
    }

    /// Nothing goes wrong.
    pub fn baseline(seed: u64) -> Self {
        Self {
            seed,
            number: seed,
            speed: TrialSpeed::REAL_TIME,
            rules: Vec::new(),
            process_faults: Vec::new(),
            rolls_back_after: None,
            rolls_versions_back: false,
            has_external_changes: false,
            variation: Variation::default(),
        }
    }

    /// A person fixes what an upgrade cannot fix by itself.
    pub fn repair_world(&self, world: &mut SimWorld) {
        match self.variation.never_fixed {
            true => fault::repair_all_but_workloads(world),
            false => fault::repair_all(world),
        }
    }

    /// For people, a line each.
    pub fn describe_lines(&self) -> Vec<String> {
        let rules = self.rules.iter().map(|r| format!("fault {r}"));
        let fates = self
            .process_faults
            .iter()
            .enumerate()
            .map(|(i, f)| format!("process {}: {f:?}", i + 1));
        let back = self
            .rolls_back_after
            .map(|n| format!("after process {n} somebody rolls the run back"));
        let versions = { self.rolls_versions_back }
            .then(|| "a rollback takes the control plane back too".to_owned());
        // The speed is told only where it is not the plan's own, as it explains the times of everything else.
        let TrialSpeed { plan, world } = self.speed;
        let speed = (self.speed != TrialSpeed::REAL_TIME).then(|| {
            format!("the plan's waits are {plan} times shorter, AWS is {world} times faster")
        });
        speed
            .into_iter()
            .chain(self.variation.describe_lines())
            .chain(rules)
            .chain(fates)
            .chain(back)
            .chain(versions)
            .collect()
    }
}

/// The rules, as text, and whether one of them is somebody else's hand.
fn draw_rules(rng: &mut fastrand::Rng, targets: &FaultTargets, length: u64) -> (Vec<String>, bool) {
    let mut texts = Vec::new();
    for _ in 0..draw_count(rng, 5) {
        texts.push(draw_request_fault(rng, length));
    }
    for _ in 0..draw_count(rng, 2) {
        texts.push(draw_outage(rng, length));
    }
    let hands = draw_count(rng, 3).saturating_sub(1);
    let hands: Vec<String> = (0..hands)
        .filter_map(|_| draw_external_change(rng, targets, length))
        .collect();
    let meddled = !hands.is_empty();
    texts.extend(hands);
    (texts, meddled)
}

/// None as often as not, and seldom as many as `most`.
fn draw_count(rng: &mut fastrand::Rng, most: usize) -> usize {
    let n = rng.usize(0..=most);
    rng.usize(0..=n)
}

fn pick_word<'a>(rng: &mut fastrand::Rng, of: &'a [&'a str]) -> &'a str {
    of[rng.usize(..of.len())]
}

/// A cluster autoscaler from the beginning on, in a quarter of the seeds; in most of these blue may shrink.
fn draw_autoscaler_rules(rng: &mut fastrand::Rng, targets: &FaultTargets) -> Vec<String> {
    if rng.u8(..) >= 64 {
        return Vec::new();
    }
    let unneeded = rng.u32(3..=60) * 10;
    // It works on node groups; nobody deploys one in a cluster that has none.
    if targets.blues.is_empty() {
        return Vec::new();
    }
    let mut rules = vec![format!("{}:{unneeded}s", WorldChangeKind::Autoscaler)];
    for blue in &targets.blues {
        if rng.u8(..) < 200 {
            let least = rng.usize(0..=targets.nodes.saturating_sub(1));
            rules.push(format!("{}:{blue}:{least}", WorldChangeKind::MinSize));
        }
    }
    rules
}

/// A fault on requests.
fn draw_request_fault(rng: &mut fastrand::Rng, length: u64) -> String {
    // Most faults hit a few requests; some last long enough to use up a client's own retries.
    let times = if rng.u8(..) < 30 {
        rng.u32(10..60)
    } else {
        rng.u32(1..=5)
    };
    // A fault has a moment and a count, and no probability: so a schedule can be repeated.
    let at = rng.u64(0..length);
    let place = pick_word(rng, FAILING_OPERATIONS);
    match rng.u8(0..9) {
        0 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::Throttle),
        1 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::Fail),
        2 => format!("{}:{place}:503:{times}@{at}s", RequestFaultKind::Status),
        3 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::DropBefore),
        // Twice as likely: a call that was carried out and whose answer was lost is the hardest for a client.
        4 | 5 => format!("{}:{place}:{times}@{at}s", RequestFaultKind::DropAfter),
        6 => format!(
            "{}:{place}:{}s:{times}@{at}s",
            RequestFaultKind::Delay,
            rng.u32(1..45)
        ),
        7 => format!(
            "{}:{place}:{}@{at}s",
            RequestFaultKind::Expired,
            rng.u32(1..=3)
        ),
        _ => format!(
            "{}:{}:{times}@{at}s",
            RequestFaultKind::Stale,
            pick_word(rng, STALE_READS)
        ),
    }
}

/// What shakes the API server, EKS or the credentials, and passes.
fn draw_outage(rng: &mut fastrand::Rng, length: u64) -> String {
    let at = rng.u64(0..length);
    match rng.u8(0..5) {
        0 => format!(
            "{}:{}s@{at}s",
            WorldChangeKind::ApiServerGone,
            rng.u32(5..600)
        ),
        1 => format!("{}@{at}s", WorldChangeKind::WatchesCut),
        2 => format!("{}@{at}s", WorldChangeKind::HistoryLost),
        3 => format!(
            "{}:{}s@{at}s",
            WorldChangeKind::CredentialsExpire,
            rng.u32(60..3600)
        ),
        _ => format!(
            "{}:{}",
            WorldChangeKind::ControlPlaneFails,
            pick_word(rng, &["IpNotAvailable", "SubnetNotFound", "Unknown"])
        ),
    }
}

/// Somebody else's hand, or a part that breaks.
fn draw_external_change(
    rng: &mut fastrand::Rng,
    targets: &FaultTargets,
    length: u64,
) -> Option<String> {
    fn pick_name<'a>(rng: &mut fastrand::Rng, of: &'a [String]) -> Option<&'a String> {
        (!of.is_empty()).then(|| &of[rng.usize(..of.len())])
    }
    // The change falls anywhere in the time that the run is expected to take.
    let at = rng.u64(0..length);
    // The number may be larger than the number of nodes there are now, since green ones come as well.
    let node = rng.usize(1..=targets.nodes.max(1) * 2);
    // All kinds are equally likely, and one whose object the cluster lacks draws nothing.
    Some(match rng.u8(0..12) {
        0 => format!(
            "{}:{}@{at}s",
            WorldChangeKind::NodeNeverJoins,
            rng.u32(1..=2)
        ),
        1 => format!(
            "{}:{}@{at}s",
            WorldChangeKind::InsufficientCapacity,
            pick_name(rng, &targets.zones)?
        ),
        2 => format!(
            "{}:{}@{at}s",
            WorldChangeKind::ImageMissing,
            pick_name(rng, &targets.workloads)?
        ),
        3 => format!(
            "{}:{}@{at}s",
            WorldChangeKind::PodNeverReady,
            pick_name(rng, &targets.workloads)?
        ),
        // The number is a minAvailable: 0 lets every pod go, and 4 is more than most workloads here have.
        4 => format!(
            "{}:{}:{}@{at}s",
            WorldChangeKind::Budget,
            pick_name(rng, &targets.budgets)?,
            rng.u32(0..5)
        ),
        // Somebody, or an autoscaler, changes the size of a group while the run counts its nodes.
        5 => format!(
            "{}:{}:{}@{at}s",
            WorldChangeKind::Scale,
            pick_name(rng, &targets.blues)?,
            if rng.bool() { "+1" } else { "-1" }
        ),
        6 => format!(
            "{}:{}:{}@{at}s",
            WorldChangeKind::Scale,
            pick_name(rng, &targets.greens)?,
            if rng.bool() { "+1" } else { "-1" }
        ),
        7 => format!("{}:{}@{at}s", WorldChangeKind::Karpenter, rng.u32(1..=2)),
        // Either may hit a node that the run has cordoned itself, or has not reached yet.
        8 => format!(
            "{}:{node}@{at}s",
            if rng.bool() {
                WorldChangeKind::Cordon
            } else {
                WorldChangeKind::Uncordon
            }
        ),
        // Somebody else writes a weight that no step of the run asked for.
        9 => format!(
            "{}:{}:{}@{at}s",
            WorldChangeKind::Weights,
            pick_name(rng, &targets.targets)?,
            rng.u32(0..100)
        ),
        10 => format!(
            "{}:{}@{at}s",
            WorldChangeKind::DeleteGroup,
            pick_name(rng, &targets.greens)?
        ),
        _ => format!("{}:{node}@{at}s", WorldChangeKind::KubeletDies),
    })
}

/// How a process ends before its time.
fn draw_process_fault(rng: &mut fastrand::Rng, length: u64) -> ProcessFault {
    // The shift draws early times more often than late ones, because most of what can go wrong is near the beginning.
    let after = Duration::from_millis(rng.u64(0..length * 1000) >> rng.u32(0..4));
    match rng.u8(0..12) {
        0..=6 => {
            // As likely among the first requests as among the many that follow.
            let request = rng.u64(1..=800) >> rng.u32(0..6);
            ProcessFault::Dies {
                request: request.max(1),
                answered: rng.bool(),
            }
        }
        // A second request to stop comes soon after the first, and is drawn less often.
        7 | 8 => ProcessFault::StopRequested {
            after,
            twice: rng.u8(..) < 60,
        },
        // A process that is suspended for longer than its lock lasts loses it to a second one.
        9 => ProcessFault::Suspended {
            after,
            lasts: Duration::from_secs(rng.u64(20..400)),
        },
        10 => ProcessFault::Contested { after },
        _ => ProcessFault::ClockJumps {
            after,
            seconds: rng.i64(-400..=400),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::chaos::fault_classes::can_be_drawn;
    use crate::chaos::provided_faults::ProvidedTargets;
    use crate::chaos::stack_faults::StackTarget;
    use crate::twin::fault::FaultKind;

    fn targets() -> FaultTargets {
        let some = |text: &str| vec![text.to_owned()];
        FaultTargets {
            zones: some("us-east-1a"),
            workloads: some("expense/backend"),
            operators: some("StrimziPodSet"),
            budgets: some("expense/backend"),
            blues: some("expense-blue"),
            greens: some("expense-green"),
            targets: some("expense-green-tg"),
            provided: ProvidedTargets {
                pools: some("general"),
                classes: some("general"),
                fargate: true,
            },
            stacks: vec![StackTarget {
                name: "nodes".to_owned(),
                group: "NodeGroup".to_owned(),
            }],
            nodes: 3,
        }
    }

    #[test]
    fn every_rule_of_every_seed_is_one_that_the_grammar_knows() {
        let (targets, mut with_autoscaler) = (targets(), 0);
        for seed in 0..5000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let (texts, _) = draw_rules(&mut rng, &targets, 3600);
            let autoscaler = draw_autoscaler_rules(&mut rng, &targets);
            with_autoscaler += u32::from(!autoscaler.is_empty());
            for text in texts.iter().chain(&autoscaler) {
                let read = text.parse::<FaultRule>();
                assert!(read.is_ok(), "{read:?}");
            }
        }
        assert!((1000..1500).contains(&with_autoscaler), "{with_autoscaler}");
    }

    #[test]
    fn the_seeds_bring_the_kinds_of_faults_that_a_tally_expects() {
        let nothing = FaultTargets {
            nodes: 3,
            ..FaultTargets::default()
        };
        for targets in [targets(), nothing] {
            let drawn = |seed| FaultSchedule::for_seed(seed, &targets).rules;
            let drawn: BTreeSet<FaultKind> = (0..5000)
                .flat_map(drawn)
                .filter_map(|rule| FaultKind::of_rule(&rule.to_string()))
                .collect();
            let expected = FaultKind::all().filter(|kind| can_be_drawn(*kind, &targets));
            assert_eq!(drawn, expected.collect());
        }
    }
}
