//! What a plan means where it is silent. Each default is the careful choice; `docs/plan.md` gives the reasons too.

use std::collections::BTreeMap;
use std::time::Duration;

use super::types::{
    AddonPolicy, Addons, Approvals, Capacity, Consent, ControlPlane, DeadKubelets, Drain,
    DrainOrder, Insights, Jobs, NodeGroup, OnDeadline, OnUnhealthy, OperatorBudgets, Plan, Retire,
    RetireHow, SingleReplicas, Strategy, Traffic,
};
use crate::model::{Minor, Windows};

const fn from_minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

impl Plan {
    /// The smallest plan: a cluster and a version, everything else by default.
    pub fn with_defaults(cluster: impl Into<String>, to: Minor) -> Self {
        Self {
            cluster: cluster.into(),
            region: None,
            to,
            strategy: Strategy::BlueGreen,
            control_plane: ControlPlane::default(),
            addons: Addons::default(),
            node_groups: Vec::new(),
            drain: Drain::default(),
            traffic: Traffic::default(),
            retire: Retire::default(),
            // At any time and without anybody: the plan itself is consent, and a runner that waits costs money.
            windows: Windows::default(),
            approvals: Approvals::default(),
            notify: Vec::new(),
        }
    }

    /// What the plan says of a blue group, or what it means where it lists none.
    pub fn node_group(&self, blue: &str) -> NodeGroup {
        self.node_groups
            .iter()
            .find(|g| g.blue == blue)
            .cloned()
            .unwrap_or_else(|| NodeGroup::with_defaults(blue, self.strategy))
    }
}

impl Default for ControlPlane {
    fn default() -> Self {
        // Ten minutes with nodes still on the old version: while no node is newer, EKS can still take the control plane
        // back. EKS takes 10 to 20 minutes a hop; an hour is its own worst case. An insight in ERROR names an API or
        // an add-on that the hop breaks.
        Self {
            bake: from_minutes(10),
            insights: Insights::Block,
            timeout: from_minutes(60),
        }
    }
}

impl Default for Addons {
    fn default() -> Self {
        // PRESERVE keeps what somebody changed on purpose; OVERWRITE has wiped CoreDNS configurations.
        Self {
            policy: AddonPolicy::Default,
            conflicts: "PRESERVE".to_owned(),
            pins: BTreeMap::new(),
            skip: Vec::new(),
            timeout: from_minutes(20),
        }
    }
}

impl NodeGroup {
    /// A blue group with everything by default.
    pub fn with_defaults(blue: impl Into<String>, strategy: Strategy) -> Self {
        Self {
            blue: blue.into(),
            green: None,
            ami_type: None,
            release_version: None,
            ami: None,
            launch_template_version: None,
            // Rolling is asked for where a second whole group is too expensive: one node more is the least that works.
            capacity: if strategy == Strategy::Rolling {
                Capacity::Surge(1)
            } else {
                Capacity::Full
            },
            instance_types: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            delete_owned: false,
            accept_degraded: false,
            // EKS itself gives nodes 15 minutes to join (EKS-NG-12).
            timeout: from_minutes(30),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            order: DrainOrder::Easiest,
            parallel: 1,
            pod_deadline: from_minutes(15),
            node_deadline: from_minutes(60),
            // At a deadline a person decides; nothing is ever deleted past its budget unasked.
            on_deadline: OnDeadline::Stop,
            bare_pods: Consent::Block,
            empty_dir: Consent::Block,
            host_path: Consent::Block,
            node_storage: Consent::Block,
            jobs: Jobs::Wait,
            single_replicas: SingleReplicas::Block,
            operator_budgets: OperatorBudgets::Block,
            budgets: BTreeMap::new(),
            dead_kubelets: DeadKubelets::Stop,
            // EKS's own update waits a minute after the last eviction of a node.
            bake: from_minutes(1),
            canary_bake: from_minutes(10),
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            steps: vec![10, 50, 100],
            bake: from_minutes(5),
            min_healthy_percent: 100,
            timeout: from_minutes(15),
            on_unhealthy: OnUnhealthy::Back,
        }
    }
}

impl Default for Retire {
    fn default() -> Self {
        // An hour is long enough for caches to expire, cron jobs to run and people to complain.
        Self {
            soak: from_minutes(60),
            then: RetireHow::Delete,
        }
    }
}
