//! The marks eksup leaves on other people's objects. Undo touches only what carries one.

/// Taint key on blue nodes and blue node groups; the value is the run's id.
pub const BLUE_TAINT: &str = "eksup.dev/blue";
/// Annotation on a node that eksup cordoned; the value is the run's id.
pub const CORDONED: &str = "eksup.dev/cordoned-by";
/// Annotation on a node where eksup set the cluster autoscaler's `scale-down-disabled`; the value is the run's id.
pub const SCALE_DOWN_HELD: &str = "eksup.dev/scale-down-held-by";
/// Annotation on such a node: what `scale-down-disabled` said before, where it said anything.
pub const SCALE_DOWN_BEFORE: &str = "eksup.dev/scale-down-disabled-before";
/// Annotation on a blue node whose emptying has begun; the value is the run's id, `@` and the time.
pub const DRAINING: &str = "eksup.dev/draining";
/// Annotation on a blue node that was given up on at its deadline, by consent; the value is the run's id.
pub const SKIPPED: &str = "eksup.dev/drain-skipped";
/// Annotation on a NodePool to whose budgets eksup has added one; the value is the run's id.
pub const DRIFT_HELD: &str = "eksup.dev/drift-held-by";
/// Annotation on such a NodePool: the budgets that it has beside the run's, as JSON.
pub const BUDGETS_BEFORE: &str = "eksup.dev/budgets-before";
/// Annotation on what eksup created in Kubernetes; the value is the run's id.
pub const CREATED_BY: &str = "eksup.dev/created-by";
/// Annotation on a green NodePool: which blue it was cloned from.
pub const CLONED_FROM: &str = "eksup.dev/cloned-from";
/// Annotation on a green NodePool: how many nodes the run makes for it.
pub const WANTED_NODES: &str = "eksup.dev/wanted-nodes";
/// Annotation on a blue NodePool: its limits before eksup set them to 0, as JSON.
pub const LIMITS_BEFORE: &str = "eksup.dev/limits-before";
/// The cluster autoscaler's own annotation.
pub const SCALE_DOWN_DISABLED: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
/// The cluster autoscaler's flags that say which groups it manages.
pub const AUTOSCALER_FLAGS: &[&str] = &["--nodes", "--node-group-auto-discovery"];
/// The label that takes a node out of controller-managed target groups.
pub const EXCLUDE_FROM_LB: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The label by which EKS says which node group a node belongs to.
pub const NODEGROUP_LABEL: &str = "eks.amazonaws.com/nodegroup";
/// Tag on what eksup created in AWS; the value is the run's id.
pub const RUN_TAG: &str = "eksup.dev/run";
/// Tag on a green node group: which blue it was cloned from.
pub const CLONED_FROM_TAG: &str = "eksup.dev/cloned-from";
/// Tag on a blue Auto Scaling group whose `AZRebalance` eksup suspended.
pub const AZ_REBALANCE_TAG: &str = "eksup.dev/az-rebalance-suspended-by";
/// Tag on a blue Auto Scaling group whose `Launch` eksup suspended.
pub const LAUNCH_TAG: &str = "eksup.dev/launch-suspended-by";
/// Tag on a blue Auto Scaling group whose warm pool eksup removed: the pool as it was, so that a later route gives it to green.
pub const WARM_POOL_TAG: &str = "eksup.dev/warm-pool-before";
/// A process of Auto Scaling that a run suspends for blue, with the tag that says so. It ends instances without regard to
/// budgets (ASG-3).
pub const REBALANCE: (&str, &str) = ("AZRebalance", AZ_REBALANCE_TAG);
/// Another one: it replaces instances that ended (ASG-15).
pub const LAUNCH: (&str, &str) = ("Launch", LAUNCH_TAG);
/// All of them.
pub const SUSPENDED_PROCESSES: &[(&str, &str)] = &[REBALANCE, LAUNCH];
/// Namespace of the journal and the lock.
pub const RUN_NAMESPACE: &str = "kube-system";
/// Name of the journal's ConfigMap and of the lock's Lease.
pub const RUN_NAME: &str = "eksup-run";
/// Field manager for every write to Kubernetes.
pub const FIELD_MANAGER: &str = "eksup";
