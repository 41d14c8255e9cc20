//! The kinds of faults: how each is written, and what it does. The grammar, what it says of an unknown kind, chaos's tally
//! and the table of `docs/twin.md` all come from here.

macro_rules! fault_kinds {
    ($(#[$doc:meta])* $name:ident { $($kind:ident $usage:literal $effect:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = concat!("`", $usage, "`: ", $effect)] $kind,)*
        }

        impl $name {
            /// All of them, as they are documented.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// How a rule of this kind is written.
            pub const fn usage(self) -> &'static str {
                match self {
                    $(Self::$kind => $usage,)*
                }
            }

            #[cfg(test)]
            const fn effect(self) -> &'static str {
                match self {
                    $(Self::$kind => $effect,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(FaultKind::from(*self).name())
            }
        }

    };
}

fault_kinds! {
    /// A fault of requests: `WHERE` and `TIMES` are the grammar's.
    RequestFaultKind {
        Throttle "throttle:WHERE:TIMES" "429, or the service's own words for it",
        Fail "fail:WHERE:TIMES" "500",
        Status "status:WHERE:CODE:TIMES" "that status",
        Denied "denied:WHERE:TIMES" "403",
        Expired "expired:WHERE:TIMES" "expired credentials; 401 from Kubernetes",
        Delay "delay:WHERE:DURATION:TIMES" "takes effect at once, answers late",
        DropBefore "drop-before:WHERE:TIMES" "the connection breaks, nothing happened",
        DropAfter "drop-after:WHERE:TIMES" "it happened, the connection breaks, no answer",
        Stale "stale:WHERE:TIMES" "a read of AWS answers what the same read answered before",
    }
}

fault_kinds! {
    /// Something that happens to the world by itself or by somebody else's hand.
    WorldChangeKind {
        NodeNeverJoins "node-never-joins:NUMBER" "the next instances run but never join",
        InsufficientCapacity "insufficient-capacity:ZONE" "no instance can be had in the zone",
        CapacityBack "capacity-back:ZONE" "and now it can",
        NoFreeAddresses "no-free-addresses:ZONE" "the zone's subnets are full",
        ControlPlaneFails "control-plane-fails:CODE" "the next control-plane update fails, such as `IpNotAvailable`",
        ImageMissing "image-missing:NAMESPACE/WORKLOAD" "its new pods cannot pull their image",
        KubeletDies "kubelet-dies:NODE" "by name, or by number in the order of names, from 1",
        PodNeverReady "pod-never-ready:NAMESPACE/WORKLOAD" "its new pods start and never become ready",
        CrashLoop "crash-loop:NAMESPACE/WORKLOAD" "its new pods start and end, again and again",
        WorkloadFixed "workload-fixed:NAMESPACE/WORKLOAD" "somebody fixes what a missing image, `pod-never-ready` or `crash-loop` broke",
        OperatorDown "operator-down:KIND" "nobody makes the pods again that objects of this kind own (`StrimziPodSet`)",
        OperatorBack "operator-back:KIND" "and now somebody does",
        EvictionHalfDone "eviction-half-done:NUMBER" "the API server dies between an eviction's entry in the budget and the pod's deletion: the budget stays spent for two minutes",
        ClockSkew "clock-skew:+DURATION" "the runner's clock is ahead of the API server's, or with `-DURATION` behind it (`rehearse` only)",
        PodsFailOn "pods-fail-on:GROUP" "no pod on the node group's nodes is ready any more, but DaemonSets'",
        NoImagesOn "no-images-on:GROUP" "the node group's nodes lose their images and can pull none, but DaemonSets'",
        Budget "budget:NAMESPACE/NAME:NUMBER" "somebody writes `minAvailable` into a disruption budget",
        Cordon "cordon:NODE" "somebody closes a node",
        Uncordon "uncordon:NODE" "somebody opens it again",
        Scale "scale:GROUP:+N" "an autoscaler raises a node group's desired size, or with `-N` lowers it",
        Autoscaler "autoscaler:DURATION" "somebody deploys a cluster autoscaler that removes nodes unneeded for so long (the real one's default: `10m`)",
        MinSize "min-size:GROUP:NUMBER" "somebody lowers a node group's smallest size, so that an autoscaler may shrink it",
        Weights "weights:TARGETGROUP:WEIGHT" "somebody edits the rules that name a target group",
        DeleteGroup "delete-group:GROUP" "somebody deletes a node group",
        Karpenter "karpenter:NUMBER" "Karpenter replaces the nodes of its own by as many new ones",
        FargateCapacity "fargate-capacity:DURATION" "new Fargate pods get no node for so long",
        KarpenterDown "karpenter-down" "Karpenter's controller does nothing any more",
        NodeclassNotReady "nodeclass-not-ready:NAME" "the subnets of an EC2NodeClass are not found any more",
        NodePoolCapacity "node-pool-capacity:NAME" "no instance can be had for a NodePool",
        DoNotDisrupt "do-not-disrupt:NAMESPACE/WORKLOAD" "somebody annotates the running pods of a workload with `karpenter.sh/do-not-disrupt`",
        ApiServerGone "api-server-gone:DURATION" "the API server refuses connections, watches are cut",
        WatchesCut "watches-cut" "every watch breaks",
        HistoryLost "history-lost" "every watch breaks, and where it wants to go on it gets 410 Gone",
        StackUpdateFails "stack-update-fails:STACK" "the next change set that is executed for a CloudFormation stack fails",
        StackDeleteFails "stack-delete-fails:STACK/LOGICAL-ID" "CloudFormation cannot delete this resource the next time that it tries",
        StackProtected "stack-protected:STACK" "somebody turns on a stack's termination protection",
        CredentialsExpire "credentials-expire:DURATION" "nobody's credentials are good for so long",
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    Request(RequestFaultKind),
    Change(WorldChangeKind),
}

impl From<RequestFaultKind> for FaultKind {
    fn from(kind: RequestFaultKind) -> Self {
        Self::Request(kind)
    }
}

impl From<WorldChangeKind> for FaultKind {
    fn from(kind: WorldChangeKind) -> Self {
        Self::Change(kind)
    }
}

impl FaultKind {
    /// All of them, as they are documented.
    pub fn all() -> impl Iterator<Item = Self> {
        let requests = RequestFaultKind::ALL.iter().copied().map(Self::Request);
        requests.chain(WorldChangeKind::ALL.iter().copied().map(Self::Change))
    }

    /// How a rule of this kind is written.
    pub const fn usage(self) -> &'static str {
        match self {
            Self::Request(kind) => kind.usage(),
            Self::Change(kind) => kind.usage(),
        }
    }

    /// What a rule of this kind begins with.
    pub fn name(self) -> &'static str {
        let usage = self.usage();
        usage.split_once(':').map_or(usage, |(name, _)| name)
    }

    /// Whether more than the name belongs to a rule of this kind.
    pub fn has_arguments(self) -> bool {
        self.usage().contains(':')
    }

    /// The kind of this name.
    pub fn find(name: &str) -> Option<Self> {
        Self::all().find(|kind| kind.name() == name)
    }

    /// The kind of a rule, by its text.
    pub fn of_rule(text: &str) -> Option<Self> {
        Self::find(text.split([':', '@']).next()?)
    }

    /// All names, for a message.
    pub fn list_names() -> String {
        let names: Vec<&str> = Self::all().map(Self::name).collect();
        match names.split_last() {
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn effect(kind: FaultKind) -> &'static str {
        match kind {
            FaultKind::Request(kind) => kind.effect(),
            FaultKind::Change(kind) => kind.effect(),
        }
    }

    #[test]
    fn the_page_has_the_table_of_all_kinds() {
        let page = include_str!("../../../docs/twin.md");
        let head = "| rule | what happens |\n| --- | --- |\n";
        let (_, table) = page.split_once(head).expect("the page has the table");
        let found: Vec<&str> = table.lines().take_while(|l| l.starts_with('|')).collect();
        let wanted: Vec<String> = FaultKind::all()
            .map(|kind| format!("| `{}` | {} |", kind.usage(), effect(kind)))
            .collect();
        assert_eq!(found, wanted, "write:\n{}", wanted.join("\n"));
    }

    #[test]
    fn every_kind_is_found_by_a_name_of_its_own() {
        for kind in FaultKind::all() {
            assert_eq!(FaultKind::find(kind.name()), Some(kind));
            assert_eq!(FaultKind::of_rule(kind.usage()), Some(kind));
        }
    }
}
