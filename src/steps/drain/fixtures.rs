//! What the tests of the drain and of the workloads are made of.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::consent::ConsentScope;
use crate::model::kube::{NamespacedName, Node, Owner, Resources, Taint, Volume, Workload};
use crate::model::marks;
use crate::model::scheduling::PodTemplate;
use crate::plan::{DrainOrder, OnDeadline, SingleReplicas};
use crate::route::DrainSpec;
use crate::scheduling::volumes::{ClaimVolumes, index_by_claim};

/// The run whose marks the nodes carry.
pub const TEST_RUN_ID: &str = "run-1";

/// A moment, in seconds after an arbitrary one.
pub fn time_at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

/// A drain of one node at a time, with the plan's defaults.
pub fn default_drain_spec() -> DrainSpec {
    DrainSpec {
        order: DrainOrder::Easiest,
        parallel: 1,
        pod_deadline: Duration::from_secs(600),
        node_deadline: Duration::from_secs(1800),
        on_deadline: OnDeadline::Stop,
        bare_pods: ConsentScope::NONE,
        empty_dir: ConsentScope::NONE,
        host_path: ConsentScope::NONE,
        wait_for_jobs: true,
        evict_jobs: ConsentScope::NONE,
        single_replicas: SingleReplicas::Block,
        wait_for_operators: false,
        budgets: Default::default(),
        skip_dead_kubelets: false,
        bake: Duration::ZERO,
        canary_bake: None,
        surge: None,
        leave_target_groups: vec![],
        served_by_pods: vec![],
        deregister_from: vec![],
        downtime: false,
        nodes_follow: false,
    }
}

/// A closed node, begun `begun` seconds after the arbitrary moment.
pub fn closed_node(name: &str, begun: Option<i64>) -> Node {
    // The mark's value is run and time, which is what a later process reads.
    let begun = begun.map(|s| {
        (
            marks::DRAINING.to_owned(),
            format!("{TEST_RUN_ID}@{}", time_at(s)),
        )
    });
    // A node that is closed is protected as well, or an autoscaler would end it.
    let held = (marks::SCALE_DOWN_DISABLED.to_owned(), "true".to_owned());
    let annotations = begun.into_iter().chain([held]);
    Node {
        name: name.into(),
        uid: name.into(),
        resource_version: "1".into(),
        labels: Default::default(),
        annotations: annotations.collect(),
        // Cordoned and tainted: the state in which the drain finds a node of blue.
        unschedulable: true,
        taints: vec![Taint {
            key: marks::BLUE_TAINT.into(),
            value: Some(TEST_RUN_ID.into()),
            effect: "NoSchedule".into(),
        }],
        provider_id: None,
        ready: "True".into(),
        ready_since: None,
        kubelet_version: "v1.27.16".into(),
        os_image: String::new(),
        allocatable: Resources::default(),
        other_allocatable: Default::default(),
        created: None,
        deleting: false,
        self_managed_group: None,
    }
}

/// A volume of claim shop/data that can be used in one zone only.
pub fn volume_in(zone: &str) -> ClaimVolumes {
    index_by_claim([Volume {
        name: "pv".into(),
        claim: Some(NamespacedName::new("shop", "data")),
        driver: None,
        handle: None,
        zones: vec![zone.into()],
        nodes: vec![],
        node_affinity: None,
        access_modes: vec![],
    }])
}

/// A workload of namespace `shop` that wants `desired` pods; `of`: the Deployment that owns it.
pub fn shop_workload(kind: &str, name: &str, of: Option<&str>, desired: i32) -> Workload {
    Workload {
        kind: kind.into(),
        key: NamespacedName::new("shop", name),
        uid: format!("uid-{name}"),
        owner: of.map(|of| Owner {
            kind: "Deployment".into(),
            name: of.into(),
            uid: format!("uid-{of}"),
        }),
        labels: Default::default(),
        selector: None,
        template_labels: Default::default(),
        // All its pods are Ready, so that a test takes away only what it is about.
        desired,
        ready: desired,
        available: desired,
        updated: desired,
        // The controller has seen the last change, so that its counts are of today.
        generation: 1,
        observed_generation: 1,
        strategy: None,
        max_surge: None,
        max_unavailable: None,
        paused: false,
        images: vec![],
        node_selector: Default::default(),
        tolerations: vec![],
        template: PodTemplate::default(),
        readiness_probe: true,
        one_after_another: false,
        pod_refusal: None,
        autoscaler_flags: vec![],
    }
}

/// A Ready node of `group` in `zone` that takes any pod.
pub fn open_node(name: &str, group: &str, zone: &str) -> Node {
    let labels = [
        (marks::NODEGROUP_LABEL, group),
        ("topology.kubernetes.io/zone", zone),
    ];
    Node {
        labels: labels
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into_iter()
            .collect(),
        unschedulable: false,
        taints: vec![],
        allocatable: Resources {
            cpu_millis: 64_000,
            memory_bytes: 256 << 30,
            pods: 200,
        },
        ..closed_node(name, None)
    }
}
