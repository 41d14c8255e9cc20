//! Scenes for a scheduler, drawn at random: nodes, the pods that are there, and one that is to be placed.

use serde_json::{Value, json};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const TOPOLOGIES: [&str; 3] = [HOSTNAME, ZONE, "pool"];
/// Set on the nodes of a round, so that nothing else is placed there.
const ROUND: &str = "eksup.dev/round";
/// What keeps a deleted pod there.
pub const HOLD: &str = "eksup.dev/conformance";
/// The label of the second namespace.
pub const TEAM: &str = "team";

/// How a pod that is there fares.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum PodOutcome {
    Runs,
    HasEnded,
    IsLeaving,
}

/// A pod that is there.
pub struct Placed {
    pub name: String,
    pub second_namespace: bool,
    pub body: Value,
    pub outcome: PodOutcome,
}

/// A volume with its claim.
pub struct Bound {
    pub volume: Value,
    pub claim: Value,
}

/// What there is when the scheduler is asked.
pub struct Scene {
    pub nodes: Vec<(String, Value)>,
    pub volumes: Vec<Bound>,
    pub placed: Vec<Placed>,
    pub incoming: Value,
}

impl Scene {
    /// The same seed draws the same; `namespaces`: the pod's own and the second one.
    pub fn draw(seed: u64, namespaces: [&str; 2]) -> Self {
        let mut dice = Dice {
            rng: fastrand::Rng::with_seed(seed),
            second: namespaces[1].to_owned(),
        };
        let round = format!("r{seed}");
        let names: Vec<String> = (0..dice.rng.usize(1..6))
            .map(|i| format!("eksup-{round}-n{i}"))
            .collect();
        let nodes = names.iter().map(|n| (n.clone(), dice.node(n, &round)));
        let nodes = nodes.collect();
        let count = if dice.one_in(3) {
            dice.rng.usize(1..3)
        } else {
            0
        };
        let volumes: Vec<Bound> = (0..count)
            .map(|i| dice.volume(&format!("{round}-v{i}"), namespaces[0], &names))
            .collect();
        let placed = (0..dice.rng.usize(..7)).map(|i| dice.placed(&format!("p{i}"), &names));
        let mut placed: Vec<Placed> = placed.collect();
        let mut incoming = dice.incoming(&round, &names);
        for (i, volume) in volumes.iter().enumerate() {
            let name = &volume.claim["metadata"]["name"];
            let by_claim = json!([{"name": "v", "persistentVolumeClaim": {"claimName": name}}]);
            let others = placed.iter_mut().find(|p| !p.second_namespace);
            if let Some(other) = others.filter(|_| dice.one_in(3)) {
                other.body["spec"]["volumes"] = by_claim;
            }
            let mut mounts = incoming["spec"]["volumes"].as_array().cloned();
            let mounts = mounts.get_or_insert_default();
            mounts.push(
                json!({"name": format!("v{i}"), "persistentVolumeClaim": {"claimName": name}}),
            );
            incoming["spec"]["volumes"] = json!(mounts);
        }
        Self {
            nodes,
            volumes,
            placed,
            incoming,
        }
    }
}

struct Dice {
    rng: fastrand::Rng,
    second: String,
}

impl Dice {
    fn pick<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.rng.usize(..of.len())]
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.rng.usize(..n) == 0
    }

    fn node(&mut self, name: &str, round: &str) -> Value {
        let mut labels =
            json!({HOSTNAME: name, ROUND: round, "cpus": self.pick(&["2", "8", "many"])});
        if !self.one_in(4) {
            labels[ZONE] = json!(self.pick(&["a", "b", "c"]));
        }
        if !self.one_in(3) {
            labels["pool"] = json!(self.pick(&["x", "y"]));
        }
        let mut taints = Vec::new();
        for key in ["dedicated", "special"] {
            if self.one_in(5) {
                let effect = self.pick(&["NoSchedule", "PreferNoSchedule", "NoExecute"]);
                let value = self.pick(&["x", "y", ""]);
                taints.push(json!({"key": key, "value": value, "effect": effect}));
            }
        }
        let room = json!({"cpu": format!("{}m", self.rng.u32(600..2000)), "memory": "1Gi", "pods": self.rng.u32(1..6).to_string(),
            "nvidia.com/gpu": self.rng.u32(0..3).to_string(), "ephemeral-storage": "1Gi"});
        json!({
            "apiVersion": "v1", "kind": "Node",
            // Whoever plays kubelets leaves it alone: what its pods say is what the scene says.
            "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake", HOLD: "no-kubelet"}},
            "spec": {"taints": taints, "unschedulable": self.one_in(6)},
            "status": {"allocatable": room, "capacity": room, "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
                "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
        })
    }

    fn volume(&mut self, name: &str, namespace: &str, nodes: &[String]) -> Bound {
        let mode = self.pick(&["ReadWriteOnce", "ReadWriteOncePod", "ReadWriteMany"]);
        let zones = [self.pick(&["a", "b", "c"]), self.pick(&["a", "b", "c"])];
        let host = &nodes[self.rng.usize(..nodes.len())];
        let place = match self.rng.u32(..4) {
            0 => Some(json!({"key": ZONE, "operator": "In", "values": zones})),
            1 => Some(json!({"key": HOSTNAME, "operator": "In", "values": [host]})),
            2 => Some(json!({"key": "pool", "operator": "Exists"})),
            _ => None,
        };
        let mut volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {"capacity": {"storage": "1Gi"}, "accessModes": [mode], "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "eksup-conformance", "csi": {"driver": "none.eksup.dev", "volumeHandle": name},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": namespace, "name": name}}
        });
        match place {
            Some(place) => {
                let term = json!({"matchExpressions": [place]});
                volume["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": [term]}});
            }
            // As the volumes of drivers that were part of Kubernetes.
            None if self.one_in(2) => {
                volume["metadata"]["labels"] = json!({ZONE: zones.join("__")});
            }
            None => {}
        }
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": [mode], "storageClassName": "eksup-conformance", "volumeName": name,
                "resources": {"requests": {"storage": "1Gi"}}}
        });
        Bound { volume, claim }
    }

    fn selector(&mut self) -> Value {
        match self.rng.u32(..5) {
            0 | 1 => json!({"matchLabels": {"app": self.pick(&["web", "db"])}}),
            2 => {
                json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": [self.pick(&["web", "db"])]}]})
            }
            3 => {
                json!({"matchExpressions": [{"key": "tier", "operator": self.pick(&["Exists", "DoesNotExist"])}]})
            }
            _ => json!({}),
        }
    }

    fn terms(&mut self, chance: usize) -> Value {
        if !self.one_in(chance) {
            return json!({});
        }
        let terms = (0..self.rng.usize(1..3)).map(|_| self.term());
        let terms: Vec<Value> = terms.collect();
        json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
    }

    fn term(&mut self) -> Value {
        let mut term = json!({"topologyKey": self.pick(&TOPOLOGIES)});
        if !self.one_in(8) {
            term["labelSelector"] = self.selector();
            if self.one_in(5) {
                term[self.pick(&["matchLabelKeys", "mismatchLabelKeys"])] = json!(["rev"]);
            }
        }
        if self.one_in(4) {
            term["namespaces"] = json!([self.second]);
        }
        if self.one_in(4) {
            let selector = [json!({}), json!({"matchLabels": {TEAM: "b"}})];
            term["namespaceSelector"] = selector[self.rng.usize(..2)].clone();
        }
        term
    }

    fn requests(&mut self, most: u32) -> Value {
        json!({"requests": {"cpu": format!("{}m", self.rng.u32(1..most)), "memory": format!("{}Mi", self.rng.u32(1..most / 3)),
            "ephemeral-storage": format!("{}Mi", self.rng.u32(1..most / 3))}})
    }

    fn pod(&mut self, name: &str) -> Value {
        let image = "registry.k8s.io/pause:3.10";
        let mut container = json!({"name": "c", "image": image, "resources": self.requests(900)});
        if self.one_in(4) {
            container["resources"]["limits"] = json!({"nvidia.com/gpu": "1"});
        }
        if self.one_in(4) {
            let mut port = json!({"containerPort": 80, "hostPort": 8089, "protocol": self.pick(&["TCP", "UDP"])});
            if self.one_in(2) {
                port["hostIP"] = json!(self.pick(&["10.0.0.1", "10.0.0.2", "0.0.0.0"]));
            }
            container["ports"] = json!([port]);
        }
        let mut labels = json!({"app": self.pick(&["web", "db"])});
        if self.one_in(2) {
            labels["tier"] = json!("front");
        }
        if !self.one_in(4) {
            labels["rev"] = json!(self.pick(&["1", "2"]));
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [container], "terminationGracePeriodSeconds": 0,
                "affinity": {"podAffinity": self.terms(6), "podAntiAffinity": self.terms(4)}}
        });
        if self.one_in(4) {
            let init = (0..self.rng.usize(1..4)).map(|i| {
                let mut init = json!({"name": format!("i{i}"), "image": image, "resources": self.requests(700)});
                if self.one_in(2) {
                    init["restartPolicy"] = json!("Always");
                }
                init
            });
            pod["spec"]["initContainers"] = json!(init.collect::<Vec<_>>());
        }
        pod
    }

    fn placed(&mut self, name: &str, nodes: &[String]) -> Placed {
        let mut body = self.pod(name);
        body["spec"]["nodeName"] = json!(nodes[self.rng.usize(..nodes.len())]);
        // A NoExecute taint would end it.
        body["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        let outcome = match self.rng.u32(..8) {
            0 => PodOutcome::HasEnded,
            1 => PodOutcome::IsLeaving,
            _ => PodOutcome::Runs,
        };
        if outcome == PodOutcome::IsLeaving {
            body["metadata"]["finalizers"] = json!([HOLD]);
        }
        Placed {
            name: name.to_owned(),
            second_namespace: self.one_in(4),
            body,
            outcome,
        }
    }

    fn toleration(&mut self) -> Value {
        let mut toleration = match self.rng.u32(..4) {
            0 => json!({"operator": "Exists"}),
            1 => {
                json!({"key": "dedicated", "operator": "Equal", "value": self.pick(&["x", "y", ""])})
            }
            2 => json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}),
            _ => json!({"key": self.pick(&["dedicated", "special"]), "operator": "Exists"}),
        };
        if self.one_in(3) {
            toleration["effect"] = json!(self.pick(&["NoSchedule", "NoExecute"]));
        }
        toleration
    }

    fn node_term(&mut self, nodes: &[String]) -> Value {
        let expression = |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        let mut expressions = Vec::new();
        if self.one_in(2) {
            let operator = self.pick(&["In", "NotIn"]);
            expressions.push(expression(
                "pool",
                operator,
                json!([self.pick(&["x", "y"])]),
            ));
        }
        if self.one_in(2) {
            let operator = self.pick(&["Gt", "Lt"]);
            expressions.push(expression("cpus", operator, json!(["4"])));
        }
        if self.one_in(3) {
            let operator = self.pick(&["Exists", "DoesNotExist"]);
            expressions.push(json!({"key": ZONE, "operator": operator}));
        }
        let mut term = json!({"matchExpressions": expressions});
        if self.one_in(4) {
            let name = &nodes[self.rng.usize(..nodes.len())];
            let operator = self.pick(&["In", "NotIn"]);
            term["matchFields"] = json!([expression("metadata.name", operator, json!([name]))]);
        }
        term
    }

    fn spread(&mut self, key: &str) -> Value {
        let hard = !self.one_in(5);
        let mut spread = json!({"maxSkew": self.rng.u32(1..3), "topologyKey": key,
            "whenUnsatisfiable": if hard { "DoNotSchedule" } else { "ScheduleAnyway" }});
        for policy in ["nodeTaintsPolicy", "nodeAffinityPolicy"] {
            if !self.one_in(3) {
                spread[policy] = json!(self.pick(&["Honor", "Ignore"]));
            }
        }
        if hard && self.one_in(2) {
            spread["minDomains"] = json!(self.rng.u32(1..4));
        }
        if !self.one_in(8) {
            spread["labelSelector"] = self.selector();
            if self.one_in(4) {
                spread["matchLabelKeys"] = json!(["rev"]);
            }
        }
        spread
    }

    fn incoming(&mut self, round: &str, nodes: &[String]) -> Value {
        let mut pod = self.pod("incoming");
        pod["spec"]["nodeSelector"] = json!({ROUND: round});
        if self.one_in(2) {
            let count = self.rng.usize(1..4);
            let tolerations: Vec<Value> = (0..count).map(|_| self.toleration()).collect();
            pod["spec"]["tolerations"] = json!(tolerations);
        }
        if self.one_in(3) {
            let terms = (0..self.rng.usize(1..3)).map(|_| self.node_term(nodes));
            let terms: Vec<Value> = terms.collect();
            pod["spec"]["affinity"]["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        }
        let keys = TOPOLOGIES.into_iter().filter(|_| self.one_in(4));
        let keys: Vec<&str> = keys.collect();
        if !keys.is_empty() {
            let spreads: Vec<Value> = keys.into_iter().map(|k| self.spread(k)).collect();
            pod["spec"]["topologySpreadConstraints"] = json!(spreads);
        }
        if self.one_in(8) {
            // For the pod as a whole, more than its containers ask for together.
            pod["spec"]["resources"] =
                json!({"requests": {"cpu": format!("{}m", self.rng.u32(900..1500))}});
            pod["spec"]["initContainers"] = json!([]);
        }
        pod
    }
}
