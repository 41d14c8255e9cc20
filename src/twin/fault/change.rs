//! What happens to the world by itself or by somebody else's hand: how it is written, and that it happens.

use std::time::Duration;

use super::{WorldChangeKind, parse_duration};
use crate::twin::aws;
use crate::twin::k8s::{autoscaler, cloud_hooks, external_actors, fargate, karpenter};
use crate::twin::world::{SimWorld, WorldNotice};

/// What happens to the world.
#[derive(Clone, Debug, PartialEq)]
pub enum WorldChange {
    NodesNeverJoin(u32),
    NoCapacity(String),
    CapacityBack(String),
    NoAddresses(String),
    ControlPlaneFails(String),
    ImageMissing {
        namespace: String,
        workload: String,
    },
    NeverReady {
        namespace: String,
        workload: String,
    },
    CrashLoop {
        namespace: String,
        workload: String,
    },
    WorkloadFixed {
        namespace: String,
        workload: String,
    },
    PodsFailOn(String),
    NoImagesOn(String),
    Budget {
        namespace: String,
        name: String,
        least: i64,
    },
    /// The runner's clock against the API server's, in seconds; whoever starts the runner sets it.
    ClockSkew(i64),
    OperatorDown(String),
    OperatorBack(String),
    HalfEvictions(u32),
    KubeletDies(String),
    Cordon {
        node: String,
        close: bool,
    },
    Scale {
        group: String,
        by: i64,
    },
    Autoscaler(Duration),
    MinSize {
        group: String,
        least: i64,
    },
    Weights {
        group: String,
        weight: i64,
    },
    DeleteGroup(String),
    Karpenter(u32),
    FargateCapacity(Duration),
    KarpenterDown,
    NodeclassNotReady(String),
    NodePoolCapacity(String),
    DoNotDisrupt {
        namespace: String,
        workload: String,
    },
    ServerGone(Duration),
    WatchesCut,
    HistoryLost,
    StackUpdateFails(String),
    StackDeleteFails {
        stack: String,
        resource: String,
    },
    StackProtected(String),
    CredentialsExpire(Duration),
}

impl WorldChange {
    /// Reads a change: its kind, and what stands behind the colon.
    pub fn parse_change(kind: WorldChangeKind, rest: &str) -> Result<Self, String> {
        // Arguments that are missing are told by the fault's own name.
        let named = |what: &str| match rest {
            "" => Err(format!("`{kind}` needs {what}")),
            rest => Ok(rest.to_owned()),
        };
        let workload = || {
            let (namespace, workload) =
                rest.split_once('/').ok_or("it needs NAMESPACE/WORKLOAD")?;
            Ok::<_, String>((namespace.to_owned(), workload.to_owned()))
        };
        let count = |what: &str| {
            rest.parse()
                .map_err(|_| format!("`{rest}` is no number of {what}"))
        };
        let two = |what: &str| {
            let (a, b) = rest
                .rsplit_once(':')
                .ok_or(format!("`{kind}` needs {what}"))?;
            Ok::<_, String>((a.to_owned(), b))
        };
        Ok(match kind {
            WorldChangeKind::NodeNeverJoins => Self::NodesNeverJoin(count("nodes")?),
            WorldChangeKind::InsufficientCapacity => Self::NoCapacity(named("a zone")?),
            WorldChangeKind::CapacityBack => Self::CapacityBack(named("a zone")?),
            WorldChangeKind::NoFreeAddresses => Self::NoAddresses(named("a zone")?),
            WorldChangeKind::ControlPlaneFails => Self::ControlPlaneFails(named("an error code")?),
            WorldChangeKind::KubeletDies => Self::KubeletDies(named("a node")?),
            WorldChangeKind::ImageMissing => {
                let (namespace, workload) = workload()?;
                Self::ImageMissing {
                    namespace,
                    workload,
                }
            }
            WorldChangeKind::PodNeverReady => {
                let (namespace, workload) = workload()?;
                Self::NeverReady {
                    namespace,
                    workload,
                }
            }
            WorldChangeKind::CrashLoop => {
                let (namespace, workload) = workload()?;
                Self::CrashLoop {
                    namespace,
                    workload,
                }
            }
            WorldChangeKind::WorkloadFixed => {
                let (namespace, workload) = workload()?;
                Self::WorkloadFixed {
                    namespace,
                    workload,
                }
            }
            WorldChangeKind::ClockSkew => Self::ClockSkew(parse_skew(rest)?),
            WorldChangeKind::OperatorDown => {
                Self::OperatorDown(named("a kind, such as StrimziPodSet")?)
            }
            WorldChangeKind::OperatorBack => {
                Self::OperatorBack(named("a kind, such as StrimziPodSet")?)
            }
            WorldChangeKind::EvictionHalfDone => Self::HalfEvictions(count("evictions")?),
            WorldChangeKind::PodsFailOn => Self::PodsFailOn(named("a node group")?),
            WorldChangeKind::NoImagesOn => Self::NoImagesOn(named("a node group")?),
            WorldChangeKind::Budget => {
                let (budget, least) = two("NAMESPACE/NAME:NUMBER")?;
                let (namespace, name) = budget
                    .split_once('/')
                    .ok_or("it needs NAMESPACE/NAME:NUMBER")?;
                let least = least
                    .parse()
                    .map_err(|_| format!("`{least}` is no number of pods"))?;
                Self::Budget {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    least,
                }
            }
            WorldChangeKind::Cordon | WorldChangeKind::Uncordon => Self::Cordon {
                node: named("a node")?,
                close: kind == WorldChangeKind::Cordon,
            },
            WorldChangeKind::Scale => {
                let (group, by) = two("GROUP:+N or GROUP:-N")?;
                let signed = by.starts_with(['+', '-']);
                let by = by
                    .parse()
                    .ok()
                    .filter(|_| signed)
                    .ok_or(format!("`{by}` is neither +N or -N"))?;
                Self::Scale { group, by }
            }
            WorldChangeKind::Autoscaler => Self::Autoscaler(parse_duration(rest)?),
            WorldChangeKind::MinSize => {
                let (group, least) = two("GROUP:NUMBER")?;
                let least = least.parse().ok().filter(|n| *n >= 0);
                Self::MinSize {
                    group,
                    least: least.ok_or("a smallest size is 0 or more")?,
                }
            }
            // Weights and sizes are checked here, so a schedule cannot ask for what the API would refuse.
            WorldChangeKind::Weights => {
                let (group, weight) = two("TARGETGROUP:WEIGHT")?;
                let weight = weight.parse().ok().filter(|w| (0..=999).contains(w));
                Self::Weights {
                    group,
                    weight: weight.ok_or("a weight is from 0 to 999")?,
                }
            }
            WorldChangeKind::DeleteGroup => Self::DeleteGroup(named("a node group")?),
            WorldChangeKind::Karpenter => Self::Karpenter(count("nodes")?),
            WorldChangeKind::FargateCapacity => Self::FargateCapacity(parse_duration(rest)?),
            WorldChangeKind::KarpenterDown => Self::KarpenterDown,
            WorldChangeKind::NodeclassNotReady => {
                Self::NodeclassNotReady(named("an EC2NodeClass")?)
            }
            WorldChangeKind::NodePoolCapacity => Self::NodePoolCapacity(named("a NodePool")?),
            WorldChangeKind::DoNotDisrupt => {
                let (namespace, workload) = workload()?;
                Self::DoNotDisrupt {
                    namespace,
                    workload,
                }
            }
            WorldChangeKind::ApiServerGone => Self::ServerGone(parse_duration(rest)?),
            WorldChangeKind::StackUpdateFails => Self::StackUpdateFails(named("a stack")?),
            WorldChangeKind::StackDeleteFails => {
                let (stack, resource) = rest.split_once('/').ok_or("it needs STACK/LOGICAL-ID")?;
                Self::StackDeleteFails {
                    stack: stack.to_owned(),
                    resource: resource.to_owned(),
                }
            }
            WorldChangeKind::StackProtected => Self::StackProtected(named("a stack")?),
            WorldChangeKind::CredentialsExpire => Self::CredentialsExpire(parse_duration(rest)?),
            WorldChangeKind::WatchesCut | WorldChangeKind::HistoryLost if !rest.is_empty() => {
                return Err(format!("`{kind}` has nothing after it"));
            }
            WorldChangeKind::WatchesCut => Self::WatchesCut,
            WorldChangeKind::HistoryLost => Self::HistoryLost,
        })
    }

    /// Makes it happen; whether there was anything to happen to.
    pub fn apply_to(&self, world: &mut SimWorld) -> bool {
        // Those who watch the world are told first what is going to be harmed, while it is still there.
        let harmed = match self {
            Self::KubeletDies(node) => resolve_node(world, node).into_iter().collect(),
            Self::DeleteGroup(group) => vec![group.clone()],
            Self::Karpenter(_) => external_actors::karpenter_nodes(world),
            Self::NodesNeverJoin(_)
            | Self::NoCapacity(_)
            | Self::CapacityBack(_)
            | Self::NoAddresses(_)
            | Self::ControlPlaneFails(_)
            | Self::ImageMissing { .. }
            | Self::NeverReady { .. }
            | Self::CrashLoop { .. }
            | Self::WorkloadFixed { .. }
            | Self::PodsFailOn(_)
            | Self::NoImagesOn(_)
            | Self::Budget { .. }
            | Self::ClockSkew(_)
            | Self::OperatorDown(_)
            | Self::OperatorBack(_)
            | Self::HalfEvictions(_)
            | Self::Cordon { .. }
            | Self::Scale { .. }
            | Self::Autoscaler(_)
            | Self::MinSize { .. }
            | Self::Weights { .. }
            | Self::FargateCapacity(_)
            | Self::KarpenterDown
            | Self::NodeclassNotReady(_)
            | Self::NodePoolCapacity(_)
            | Self::DoNotDisrupt { .. }
            | Self::ServerGone(_)
            | Self::WatchesCut
            | Self::HistoryLost
            | Self::StackUpdateFails(_)
            | Self::StackDeleteFails { .. }
            | Self::StackProtected(_)
            | Self::CredentialsExpire(_) => Vec::new(),
        };
        for one in &harmed {
            world.notify_observer(WorldNotice::Harmed { node_or_group: one });
        }
        // A change that finds nothing to change is not counted as one that happened.
        match self {
            Self::NodesNeverJoin(number) => {
                world.cloud.switches.never_join += number;
                true
            }
            Self::NoCapacity(zone) => world.cloud.switches.no_capacity.insert(zone.clone()),
            Self::CapacityBack(zone) => world.cloud.switches.no_capacity.remove(zone),
            Self::NoAddresses(zone) => aws::fill_subnets(world, zone),
            Self::ControlPlaneFails(code) => {
                world.cloud.switches.control_plane_fails.push(code.clone());
                true
            }
            Self::ImageMissing {
                namespace,
                workload,
            } => external_actors::make_image_missing(world, namespace, workload),
            Self::NeverReady {
                namespace,
                workload,
            } => external_actors::make_never_ready(world, namespace, workload),
            Self::CrashLoop {
                namespace,
                workload,
            } => external_actors::make_crash_loop(world, namespace, workload),
            Self::WorkloadFixed {
                namespace,
                workload,
            } => external_actors::fix_workload(world, namespace, workload),
            // The world's own clock is right.
            Self::ClockSkew(_) => true,
            Self::OperatorDown(kind) => external_actors::stop_operator(world, kind),
            Self::OperatorBack(kind) => external_actors::start_operator(world, kind),
            Self::HalfEvictions(number) => external_actors::set_half_evictions(world, *number),
            Self::PodsFailOn(group) => external_actors::fail_pods_on(world, group),
            Self::NoImagesOn(group) => external_actors::remove_images_on(world, group),
            Self::Budget {
                namespace,
                name,
                least,
            } => external_actors::tighten_budget(world, namespace, name, *least),
            Self::KubeletDies(node) => resolve_node(world, node).is_some_and(|node| {
                cloud_hooks::stop_kubelet(world, &node);
                true
            }),
            Self::Cordon { node, close } => resolve_node(world, node)
                .is_some_and(|node| external_actors::set_cordoned(world, &node, *close)),
            Self::Scale { group, by } => aws::change_desired_size(world, group, *by),
            Self::Autoscaler(unneeded) => autoscaler::deploy_autoscaler(world, *unneeded),
            Self::MinSize { group, least } => aws::set_min_size(world, group, *least),
            Self::Weights { group, weight } => aws::edit_weights(world, group, *weight),
            Self::DeleteGroup(group) => aws::delete_group(world, group),
            Self::Karpenter(number) => karpenter::replace_claims(world, *number)
                .unwrap_or_else(|| external_actors::replace_karpenter_nodes(world, *number)),
            Self::KarpenterDown => karpenter::set_stopped(world, true),
            Self::NodeclassNotReady(name) => karpenter::set_class_ready(world, name, false),
            Self::NodePoolCapacity(name) => karpenter::set_pool_capacity(world, name, false),
            Self::DoNotDisrupt {
                namespace,
                workload,
            } => karpenter::mark_do_not_disrupt(world, namespace, workload),
            Self::FargateCapacity(lasts) => fargate::set_no_capacity(world, *lasts),
            Self::ServerGone(lasts) => {
                cloud_hooks::start_outage(world, *lasts);
                true
            }
            Self::WatchesCut => {
                cloud_hooks::cut_watches(world);
                true
            }
            Self::HistoryLost => {
                cloud_hooks::start_outage(world, Duration::ZERO);
                true
            }
            Self::StackUpdateFails(stack) => aws::fail_stack_update(world, stack),
            Self::StackDeleteFails { stack, resource } => {
                aws::fail_stack_deletion(world, stack, resource)
            }
            Self::StackProtected(stack) => aws::protect_stack(world, stack),
            Self::CredentialsExpire(lasts) => {
                aws::expire_credentials(world, *lasts);
                true
            }
        }
    }
}

/// Reads how far a clock is off: a sign and a duration.
fn parse_skew(text: &str) -> Result<i64, String> {
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("+", rest)) => (1, rest),
        Some(("-", rest)) => (-1, rest),
        Some(_) | None => return Err(format!("`{text}` is neither +DURATION nor -DURATION")),
    };
    let seconds = i64::try_from(parse_duration(rest)?.as_secs());
    seconds
        .map(|s| sign * s)
        .map_err(|_| format!("`{text}` is too long"))
}

/// Somebody fixes what changes of the world have broken and an upgrade cannot fix by itself.
pub fn repair_all(world: &mut SimWorld) {
    repair_all_but_workloads(world);
    external_actors::fix_workloads(world);
}

/// The same, but nobody fixes the workloads: their images stay away, their pods stay broken.
pub fn repair_all_but_workloads(world: &mut SimWorld) {
    let switches = &mut world.cloud.switches;
    switches.no_capacity.clear();
    switches.never_join = 0;
    switches.expired_until = None;
    switches.control_plane_fails.clear();
    aws::free_subnets(world);
    aws::replace_dead_instances(world);
    // No group replaces these.
    for node in external_actors::karpenter_nodes(world) {
        cloud_hooks::revive_kubelet(world, &node);
    }
    fargate::repair(world);
    external_actors::restore_budgets_and_nodes(world);
    karpenter::restore_pools(world);
}

/// A node by its name, or by its number in the order of names, from 1.
fn resolve_node(world: &SimWorld, node: &str) -> Option<String> {
    let names = cloud_hooks::node_names(world);
    let by_number = node
        .parse::<usize>()
        .ok()
        .and_then(|n| names.get(n.checked_sub(1)?));
    by_number
        .or_else(|| names.iter().find(|n| *n == node))
        .cloned()
}
