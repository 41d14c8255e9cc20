//! The one table of finding codes. `docs/findings.md` explains each; a test holds the two together.

use super::Severity;

macro_rules! codes {
    ($($name:ident = $code:literal, $severity:ident, $title:literal;)*) => {
        /// What a finding is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $title] $name,)* }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code, as in `EKSUP-P001`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What it says, in a few words.
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// How much it weighs, unless the plan or the case says otherwise.
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    ClusterNotActive = "EKSUP-C001", Blocker, "The cluster is not ACTIVE";
    ClusterHealth = "EKSUP-C002", Blocker, "EKS reports a health issue of the cluster";
    ControlPlaneIps = "EKSUP-C003", Blocker, "The control plane's subnets have too few free addresses";
    InsightError = "EKSUP-C004", Blocker, "An EKS upgrade insight is in ERROR";
    InsightWarning = "EKSUP-C005", Warning, "An EKS upgrade insight is in WARNING or UNKNOWN";
    TargetNotOffered = "EKSUP-C006", Blocker, "EKS does not offer a version on the route";
    TargetSupport = "EKSUP-C007", Warning, "Support of the target version ends soon or has ended";
    ServerDiffers = "EKSUP-C008", Warning, "The API server reports another version than EKS";
    AutoMode = "EKSUP-C009", Warning, "EKS Auto Mode runs nodes of this cluster";
    UpdateAdopted = "EKSUP-C020", Warning, "The next hop is in progress already";
    InsightsMissing = "EKSUP-C021", Blocker, "No upgrade insight was read for the next version";
    InsightsOld = "EKSUP-C022", Warning, "The upgrade insights could not be refreshed";
    Misconfiguration = "EKSUP-C023", Warning, "An EKS insight reports a misconfiguration";
    GroupNotActive = "EKSUP-N001", Blocker, "A node group is not ACTIVE";
    GroupHealth = "EKSUP-N002", Warning, "EKS reports a health issue of a node group";
    GreenIps = "EKSUP-N003", Blocker, "Green's subnets have too few free addresses";
    GroupOwned = "EKSUP-N004", Blocker, "Another tool owns a node group that would be deleted";
    UnmanagedNodes = "EKSUP-N005", Warning, "Nodes belong to no managed node group";
    DoesNotFit = "EKSUP-N006", Blocker, "Pods of blue do not fit on green";
    DaemonOnBlueOnly = "EKSUP-N007", Warning, "A DaemonSet selects blue nodes only";
    NodeNotReady = "EKSUP-N008", Blocker, "A blue node is not Ready";
    ImageStays = "EKSUP-N009", Warning, "A node group with a custom AMI keeps its old kubelet";
    Fargate = "EKSUP-N010", Warning, "Fargate pods keep their kubelet until they are recreated";
    SelfMoving = "EKSUP-N011", Info, "Karpenter or Auto Mode replaces its own nodes";
    CannotBeEmptied = "EKSUP-N012", Blocker, "A self-managed group cannot be emptied or deleted";
    KeptNode = "EKSUP-N013", Blocker, "Something keeps a node from being replaced";
    SystemNotNamed = "EKSUP-N014", Warning, "Pods may be scheduled to nodes of another operating system";
    OtherWindows = "EKSUP-N015", Warning, "Green runs another release of Windows than blue";
    WindowsAddresses = "EKSUP-N016", Warning, "Pods on Windows nodes get no address";
    NodeAccess = "EKSUP-N017", Warning, "It is unknown whether green's nodes may join the cluster";
    StackHeld = "EKSUP-N018", Blocker, "A stack cannot be deleted with its group alone";
    NodeAccessMissing = "EKSUP-N019", Blocker, "Green's nodes may not join the cluster";
    AddressesUnknown = "EKSUP-N030", Warning, "It is unknown how many addresses green needs";
    SubnetGone = "EKSUP-N031", Blocker, "A subnet of a node group does not exist";
    AutoscalerMissesGreen = "EKSUP-N050", Warning, "A cluster autoscaler will not manage green";
    AutoscalerVersion = "EKSUP-N051", Warning, "A cluster autoscaler is not for the target's minor";
    AutoscalerUnread = "EKSUP-N052", Warning, "It is unknown which groups a cluster autoscaler manages";
    ProcessSuspended = "EKSUP-N053", Warning, "Processes of an Auto Scaling group are suspended";
    WarmNodes = "EKSUP-N055", Warning, "Instances of a warm pool register as nodes";
    GroupExtras = "EKSUP-N054", Warning, "An Auto Scaling group has settings that green does not get";
    DaemonSetDown = "EKSUP-N060", Warning, "A DaemonSet is Ready on no node of blue";
    OtherSystem = "EKSUP-N090", Warning, "Green runs another operating system than blue";
    MetadataLost = "EKSUP-N091", Blocker, "Pods use the nodes' credentials, which they cannot reach on green";
    UserDataUnsure = "EKSUP-N092", Warning, "User data may not suit green's image";
    ImageMisfit = "EKSUP-N093", Blocker, "Green's image does not suit its instance types";
    KarpenterSystem = "EKSUP-N094", Warning, "Karpenter's nodes run Amazon Linux 2";
    CapacityReserved = "EKSUP-N095", Blocker, "Blue's reserved capacity cannot hold green as well";
    TypeNotOffered = "EKSUP-N096", Blocker, "A zone of green does not offer its instance types";
    GroupQuota = "EKSUP-N097", Blocker, "Green would exceed the cluster's quota of node groups";
    CpuQuota = "EKSUP-N098", Blocker, "Green would exceed the account's quota of vCPUs";
    StorageQuota = "EKSUP-N100", Blocker, "Green would exceed the account's quota of storage";
    QuotaUnknown = "EKSUP-N099", Warning, "A quota that green needs is unknown";
    HandMadeTaint = "EKSUP-N080", Warning, "Green's nodes will lack a taint that blue's nodes have";
    AddonStatus = "EKSUP-A001", Blocker, "An add-on is not ACTIVE";
    AddonIncompatible = "EKSUP-A002", Blocker, "An add-on has no version that runs on a minor of the route";
    AddonSelfManaged = "EKSUP-A003", Warning, "EKS does not manage an add-on";
    AddonSkipped = "EKSUP-A004", Warning, "A skipped add-on does not run on the target";
    AddonUnknown = "EKSUP-A005", Blocker, "EKS's catalogue does not list an add-on";
    AddonNotListed = "EKSUP-A020", Blocker, "EKS lists no version of an add-on for a minor of the route";
    AddonConfiguration = "EKSUP-A030", Blocker, "An add-on's configuration does not suit a version on the route";
    WebhookDown = "EKSUP-W001", Blocker, "A fail-closed admission webhook has no Ready endpoint";
    WebhookBlocksItself = "EKSUP-W002", Blocker, "A webhook must answer for the replacement of its own pod";
    WebhookAway = "EKSUP-W003", Warning, "A fail-closed admission webhook is unavailable while its pod moves";
    BudgetNever = "EKSUP-P001", Blocker, "A PodDisruptionBudget never allows an eviction";
    BudgetShort = "EKSUP-P002", Warning, "A PodDisruptionBudget allows no eviction at present";
    TwoBudgets = "EKSUP-P003", Blocker, "Two PodDisruptionBudgets select one pod";
    SickUnderBudget = "EKSUP-P004", Blocker, "A pod that is not Ready cannot be evicted under its budget";
    BarePod = "EKSUP-P005", Blocker, "A pod without a controller would be lost";
    EmptyDir = "EKSUP-P006", Blocker, "A pod would lose the data in its emptyDir";
    ToleratesBlue = "EKSUP-P007", Warning, "A pod tolerates the taint that keeps pods off blue";
    PinnedToBlue = "EKSUP-P008", Blocker, "A pod can run on blue nodes only";
    VolumeZone = "EKSUP-P009", Blocker, "A volume is in a zone without green nodes";
    LocalVolume = "EKSUP-P010", Blocker, "A volume is bound to a blue node";
    HostPort = "EKSUP-P011", Warning, "More pods want a host port than green has nodes";
    SingleReplica = "EKSUP-P012", Warning, "A workload of one replica is down while its pod moves";
    AskedToStay = "EKSUP-P013", Warning, "A pod asks autoscalers not to evict it";
    RunningJob = "EKSUP-P014", Info, "Pods that run to completion are running on blue";
    LongGrace = "EKSUP-P015", Warning, "A pod may take longer to stop than the plan allows";
    NotSettled = "EKSUP-P016", Warning, "A workload has fewer Ready pods than it wants";
    NewTaint = "EKSUP-P017", Blocker, "A pod does not tolerate a taint that the plan gives green";
    SpreadOverBlue = "EKSUP-P080", Blocker, "A topology spread counts blue's cordoned nodes";
    StuckTerminating = "EKSUP-P040", Blocker, "A pod on blue stays Terminating";
    ClaimShared = "EKSUP-P041", Blocker, "Pods share a volume that only one node at a time can use";
    NodeNamed = "EKSUP-P042", Blocker, "A workload's template names a node of blue";
    SlowReplacement = "EKSUP-P043", Warning, "Replacements under one budget take long to become Ready";
    PriorityClassGone = "EKSUP-P060", Blocker, "A workload's pods name a PriorityClass that does not exist";
    QuotaRefuses = "EKSUP-P061", Blocker, "A ResourceQuota refuses the replacements of evicted pods";
    PodSecurityRefuses = "EKSUP-P062", Blocker, "A namespace's Pod Security level refuses the replacements of evicted pods";
    HostPathData = "EKSUP-P050", Blocker, "A pod would lose the data on its node's disk";
    NodeStorage = "EKSUP-P051", Blocker, "A storage system keeps volumes on the disks of blue's nodes";
    BindingToBlue = "EKSUP-T010", Blocker, "A TargetGroupBinding selects blue nodes only";
    LocalPolicy = "EKSUP-T011", Warning, "A Local service may drop connections while its pods move";
    Sticky = "EKSUP-T012", Warning, "Sticky clients stay on blue after a shift";
    BalancerZone = "EKSUP-T013", Warning, "Green has nodes in a zone the load balancer does not serve";
    UnhealthyNow = "EKSUP-T014", Warning, "Targets of blue are unhealthy already";
    ClassicBalancer = "EKSUP-T015", Info, "Blue serves a classic load balancer";
    ServiceTakesBlue = "EKSUP-T022", Blocker, "A Service's load balancer selects blue nodes only";
    BackendNotOnGreen = "EKSUP-T023", Blocker, "The DaemonSet behind a target group does not run on green";
    Unread = "EKSUP-U001", Warning, "Something could not be read";
    PermissionMissing = "EKSUP-U002", Blocker, "A permission that the plan needs is missing";
    PermissionsUnchecked = "EKSUP-U003", Info, "The caller's permissions could not be checked beforehand";
    TargetBehind = "EKSUP-R001", Blocker, "The plan's version is older than the cluster's";
    NoSuchGroup = "EKSUP-R002", Blocker, "The plan names a node group that does not exist";
    NodeLeftBehind = "EKSUP-R003", Blocker, "A node's kubelet would be too old for the control plane";
    ImageMissing = "EKSUP-R004", Blocker, "A node group with a custom AMI gets no new image";
    ImageForHop = "EKSUP-R005", Blocker, "A node group with a custom AMI must be upgraded to a minor in between first";
    GreenTaken = "EKSUP-R006", Blocker, "Green's name belongs to a node group that eksup did not create";
    TemplateDecides = "EKSUP-R007", Blocker, "The launch template and the plan contradict each other";
    ReleaseMismatch = "EKSUP-R008", Blocker, "The release version is not for the target version";
    OldBootstrap = "EKSUP-R009", Blocker, "The launch template's user data does not suit green's image";
    TemplateVersionUnknown = "EKSUP-R030", Blocker, "The version of a launch template could not be read";
    GreenNameInvalid = "EKSUP-R031", Blocker, "EKS does not accept green's name";
    PinUnusable = "EKSUP-R010", Blocker, "An add-on cannot have its pinned version";
    PoolOwned = "EKSUP-R032", Blocker, "A tool keeps a NodePool as its source has it";
    PoolNotReady = "EKSUP-R033", Blocker, "A NodePool is not Ready";
    CniTooOld = "EKSUP-R011", Blocker, "The network add-on is too old for AL2023 nodes";
    TargetGroupMissing = "EKSUP-T001", Blocker, "The plan names a target group that does not exist";
    TargetGroupUnfit = "EKSUP-T002", Blocker, "Weights cannot move between these target groups";
    RuleMissing = "EKSUP-T003", Blocker, "The plan names a listener rule that does not exist";
    RuleElsewhere = "EKSUP-T004", Blocker, "The listener rule forwards elsewhere";
    RuleControlled = "EKSUP-T005", Blocker, "A load balancer controller owns the rule or the target group";
    NobodyBehind = "EKSUP-T006", Blocker, "No node group serves the target group";
    TargetGroupUnread = "EKSUP-T007", Blocker, "What blue serves could not be read";
    ForwardRefused = "EKSUP-T020", Blocker, "ELB would refuse both target groups in one rule";
    TargetPort = "EKSUP-T021", Blocker, "Targets are registered at another port than their target group's";
}

impl Code {
    /// The code of that text.
    pub fn parse_code(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|c| c.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::route::Obstacle;

    #[test]
    fn no_code_is_used_twice_and_every_obstacle_has_one() {
        let all: BTreeSet<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(all.len(), Code::ALL.len());
        for obstacle in Obstacle::ALL {
            assert!(
                Code::parse_code(obstacle.code())
                    .is_some_and(|c| c.severity() == Severity::Blocker),
                "{obstacle:?}"
            );
        }
    }

    #[test]
    fn the_page_on_findings_explains_exactly_these_codes() {
        let page = include_str!("../../docs/findings.md");
        let explained: BTreeSet<&str> = page
            .lines()
            .filter_map(|l| l.strip_prefix("### "))
            .collect();
        let known: BTreeSet<&str> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(explained, known);
        for code in Code::ALL {
            let weight = match code.severity() {
                Severity::Blocker => "blocker",
                Severity::Warning => "warning",
                Severity::Info => "info",
            };
            let head = format!("### {}\n\n**{}** ({weight}).", code.as_str(), code.title());
            assert!(
                page.contains(&head),
                "docs/findings.md should have:\n{head}"
            );
        }
    }
}
