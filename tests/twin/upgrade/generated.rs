//! Clusters drawn by a seed: what `check` calls ready is to get through, and what it says will be stuck is to be stuck.
//!
//! A cluster is the field cases' healthy one with some workloads more. The twin's own controllers and scheduler make and
//! place their pods before anything is read, so that every cluster is one that can be.

use std::fmt::Write as _;
use std::time::Duration;

use eksup::engine::RunOutcome;
use eksup::model::snapshot::Snapshot;
use eksup::ready::{Finding, Severity};
use fastrand::Rng;
use serde_json::{Value, json};

use crate::support::process_rig::Rig;

const BASE: &str = include_str!("../../data/healthy-cluster.json");
/// How many clusters are drawn; 200 with `EKSUP_FULL_SWEEP`.
const CLUSTERS: u64 = 80;
/// Findings that ask for consent because something is lost or belongs to somebody else: the run itself would go through.
const CONSENT: &[&str] = &["P005", "P006", "P050", "P051"];

/// A drawn cluster, its plan, and what was drawn, in words.
struct Drawn {
    snapshot: Snapshot,
    plan: String,
    words: String,
}

fn draw(seed: u64) -> Drawn {
    let mut rng = Rng::with_seed(seed);
    let mut base: Value = serde_json::from_str(BASE).unwrap();
    let mut words = String::new();
    let mut plan = "cluster: expense-dev\nregion: us-east-1\nto: 1.28\nnodeGroups:\n  - {blue: expense-blue, green: expense-green".to_owned();
    if rng.u8(0..4) == 0 {
        plan += ", labels: {colour: blue}";
        words += "green has colour=blue; ";
    }
    plan += "}\ndrain: {bake: 10s}\nretire: {soak: 1m}\ncontrolPlane: {bake: 10s}\n";
    if rng.u8(0..4) == 0 {
        plan += "strategy: rolling\n";
        words += "rolling; ";
    }
    for number in 0..rng.usize(1..=3) {
        workload(&mut rng, &mut base, &mut words, &format!("w{number}"));
    }
    Drawn {
        snapshot: eksup::inventory::snapshot::parse_snapshot(&base.to_string()).unwrap(),
        plan,
        words,
    }
}

/// Adds objects to the list of a path.
fn put(base: &mut Value, path: &str, object: Value) {
    let kube = base["kubernetes"].as_object_mut().unwrap();
    let list = kube.entry(path).or_insert_with(|| json!([]));
    list.as_array_mut().unwrap().push(object);
}

fn meta(name: &str, seed: u64) -> Value {
    json!({
        "name": name, "namespace": "expense", "uid": format!("00000000-0000-4000-8000-{seed:012x}"),
        "creationTimestamp": "2026-11-21T08:15:00Z", "generation": 1, "labels": {"app": name},
    })
}

/// One workload and what belongs to it.
fn workload(rng: &mut Rng, base: &mut Value, words: &mut String, name: &str) {
    let labels = json!({"matchLabels": {"app": name}});
    let replicas = rng.i64(1..=4);
    let daemon = rng.u8(0..6) == 0;
    let mut spec = json!({
        "containers": [{
            "name": "c", "image": "registry.local/generated:1", "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": format!("{}m", *rng.choice([50, 100, 300].iter()).unwrap()), "memory": "64Mi"}},
        }],
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler",
        "securityContext": {}, "terminationGracePeriodSeconds": 30,
    });
    let _ = write!(
        words,
        "{} {name} of {replicas}",
        if daemon { "DaemonSet" } else { "Deployment" }
    );
    constraint(rng, &mut spec, words, &labels);
    if !daemon {
        storage(rng, base, &mut spec, words, name);
    }
    let template = json!({"metadata": {"labels": {"app": name}}, "spec": spec});
    let uid = rng.u64(0..1 << 40);
    if daemon {
        put(
            base,
            "/apis/apps/v1/daemonsets",
            json!({
                "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": meta(name, uid),
                "spec": {"selector": labels, "template": template, "revisionHistoryLimit": 10,
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}},
                "status": {},
            }),
        );
    } else if rng.u8(0..4) == 0 {
        words.push_str(" as StatefulSet");
        put(
            base,
            "/apis/apps/v1/statefulsets",
            json!({
                "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": meta(name, uid),
                "spec": {"replicas": replicas, "selector": labels, "template": template, "revisionHistoryLimit": 10,
                    "serviceName": name, "podManagementPolicy": "OrderedReady",
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
                "status": {},
            }),
        );
        budget(rng, base, words, name, replicas, &labels);
    } else {
        put(
            base,
            "/apis/apps/v1/deployments",
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta(name, uid),
                "spec": {"replicas": replicas, "selector": labels, "template": template, "revisionHistoryLimit": 10,
                    "progressDeadlineSeconds": 600,
                    "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}},
                "status": {},
            }),
        );
        budget(rng, base, words, name, replicas, &labels);
    }
    words.push_str("; ");
}

/// Where its pods may be.
fn constraint(rng: &mut Rng, spec: &mut Value, words: &mut String, labels: &Value) {
    let affinity = |terms: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    let term = |key: &str, operator: &str, values: &[&str]| {
        let mut e = json!({"key": key, "operator": operator});
        if !values.is_empty() {
            e["values"] = json!(values);
        }
        json!({"matchExpressions": [e]})
    };
    let spread = |key: &str, honor: bool| {
        let mut c = json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": labels});
        if honor {
            c["nodeTaintsPolicy"] = json!("Honor");
        }
        json!([c])
    };
    let drawn = match rng.u8(0..16) {
        0 => {
            spec["nodeSelector"] = json!({"colour": "blue"});
            "nodeSelector colour=blue"
        }
        1 => {
            spec["affinity"] = affinity(json!([term("colour", "In", &["blue"])]));
            "affinity colour In blue"
        }
        2 => {
            spec["affinity"] = affinity(json!([
                term("colour", "In", &["red"]),
                term("kubernetes.io/os", "In", &["linux"])
            ]));
            "affinity colour In red, or linux"
        }
        3 => {
            spec["affinity"] = affinity(json!([term("colour", "NotIn", &["red"])]));
            "affinity colour NotIn red"
        }
        4 => {
            spec["affinity"] = affinity(json!([term("colour", "Exists", &[])]));
            "affinity colour Exists"
        }
        5 => {
            spec["affinity"] = affinity(json!([term("gpu", "DoesNotExist", &[])]));
            "affinity gpu DoesNotExist"
        }
        6 => {
            spec["affinity"] = affinity(json!([term(
                "kubernetes.io/arch",
                "In",
                &["arm64", "amd64"]
            )]));
            "affinity arch"
        }
        7 => {
            spec["affinity"] = affinity(json!([term(
                "topology.kubernetes.io/zone",
                "In",
                &["us-east-1a"]
            )]));
            "affinity zone a"
        }
        8 => {
            spec["topologySpreadConstraints"] = spread("kubernetes.io/hostname", false);
            "spread over hosts"
        }
        9 => {
            spec["topologySpreadConstraints"] = spread("kubernetes.io/hostname", true);
            "spread over hosts, taints honoured"
        }
        10 => {
            spec["topologySpreadConstraints"] = spread("topology.kubernetes.io/zone", false);
            "spread over zones"
        }
        11 => {
            spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"}]}});
            "not two on a host"
        }
        12 => {
            spec["containers"][0]["ports"] =
                json!([{"containerPort": 9000, "hostPort": 9000, "protocol": "TCP"}]);
            "host port 9000/TCP"
        }
        13 => {
            spec["tolerations"] = json!([{"operator": "Exists"}]);
            "tolerates everything"
        }
        _ => "anywhere",
    };
    let _ = write!(words, ", {drawn}");
}

/// What its pods keep.
fn storage(rng: &mut Rng, base: &mut Value, spec: &mut Value, words: &mut String, name: &str) {
    let volume = match rng.u8(0..10) {
        0 => json!({"name": "v", "emptyDir": {}}),
        1 => json!({"name": "v", "emptyDir": {"medium": "Memory"}}),
        2 => json!({"name": "v", "hostPath": {"path": "/var/data", "type": "DirectoryOrCreate"}}),
        3 => json!({"name": "v", "hostPath": {"path": "/var/run/docker.sock", "type": "Socket"}}),
        4 => {
            claim(rng, base, name);
            json!({"name": "v", "persistentVolumeClaim": {"claimName": format!("{name}-claim")}})
        }
        _ => return,
    };
    let _ = write!(words, ", {volume}");
    spec["volumes"] = json!([volume]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
}

/// A volume of one zone, ReadWriteOnce, bound.
fn claim(rng: &mut Rng, base: &mut Value, name: &str) {
    let claim = format!("{name}-claim");
    let mut meta_claim = meta(&claim, rng.u64(0..1 << 40));
    let uid = meta_claim["uid"].clone();
    meta_claim["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
    put(
        base,
        "/api/v1/persistentvolumeclaims",
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta_claim,
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}, "storageClassName": "gp3",
                "volumeMode": "Filesystem", "volumeName": format!("pv-{name}")},
            "status": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "20Gi"}, "phase": "Bound"},
        }),
    );
    let zone = *rng.choice(["us-east-1a", "us-east-1b"].iter()).unwrap();
    let mut meta_volume = meta(&format!("pv-{name}"), rng.u64(0..1 << 40));
    meta_volume.as_object_mut().unwrap().remove("namespace");
    put(
        base,
        "/api/v1/persistentvolumes",
        json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": meta_volume,
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "20Gi"},
                "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "name": claim, "namespace": "expense", "uid": uid},
                "csi": {"driver": "ebs.csi.aws.com", "fsType": "ext4", "volumeHandle": format!("vol-{name}")},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}},
                "persistentVolumeReclaimPolicy": "Retain", "storageClassName": "gp3", "volumeMode": "Filesystem"},
            "status": {"phase": "Bound"},
        }),
    );
}

/// Its budget, or none.
fn budget(
    rng: &mut Rng,
    base: &mut Value,
    words: &mut String,
    name: &str,
    replicas: i64,
    labels: &Value,
) {
    let rule = match rng.u8(0..8) {
        0 => json!({"minAvailable": replicas}),
        1 => json!({"maxUnavailable": 0}),
        2 | 3 => json!({"maxUnavailable": 1}),
        4 => json!({"minAvailable": (replicas - 1).max(1)}),
        _ => return,
    };
    let _ = write!(words, ", budget {rule}");
    let mut spec = rule;
    spec["selector"] = labels.clone();
    put(
        base,
        "/apis/policy/v1/poddisruptionbudgets",
        json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": meta(name, rng.u64(0..1 << 40)),
            "spec": spec, "status": {"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0},
        }),
    );
}

/// What `check` said and how the run ended, where the two disagree.
async fn disagreement(seed: u64) -> Option<String> {
    let drawn = draw(seed);
    let rig = Rig::new(&drawn.snapshot, &drawn.plan, seed);
    // The twin's controllers make the pods and its scheduler places them.
    tokio::time::sleep(Duration::from_secs(600)).await;
    let inventory = rig.read().await;
    let (route, findings) = eksup::run::judged_route::build_and_judge(&rig.plan, &inventory);
    let blockers: Vec<&Finding> = findings
        .iter()
        .filter(|f| f.severity == Severity::Blocker)
        .collect();
    let told = |f: &&Finding| format!("{} {}: {}", f.code, f.subject, f.detail);
    let consent = |f: &&&Finding| CONSENT.iter().any(|c| f.code.ends_with(c));
    // Pods that tolerate everything end with blue whatever their budget says: the run goes through, and they are lost.
    let ends_with_blue = findings.iter().any(|f| f.code.ends_with("P007"));
    if ends_with_blue && !blockers.is_empty() {
        return None;
    }
    if route.is_none() || blockers.iter().any(|f| consent(&f)) {
        return None;
    }
    let ended = rig.apply().await;
    match (blockers.first(), &ended) {
        (None, RunOutcome::Done) => None,
        (None, _) => Some(format!(
            "seed {seed}: {}: ready, and ended {ended:?}",
            drawn.words
        )),
        (Some(f), RunOutcome::Done) => Some(format!(
            "seed {seed}: {}: done, and check said {}",
            drawn.words,
            told(f)
        )),
        (Some(_), _) => None,
    }
}

#[test]
fn over_generated_clusters_check_says_ready_exactly_when_the_run_ends_done() {
    let first = std::env::var("EKSUP_GENERATED")
        .ok()
        .map(|s| s.parse::<u64>().unwrap());
    let clusters = if super::back::full() { 200 } else { CLUSTERS };
    let seeds: Vec<u64> = first.map_or_else(|| (1..=clusters).collect(), |s| vec![s]);
    let halves = seeds.chunks(seeds.len().div_ceil(2)).map(<[u64]>::to_vec);
    let threads: Vec<_> = halves
        .map(|seeds| std::thread::spawn(move || run_all(&seeds)))
        .collect();
    let bad: Vec<String> = threads
        .into_iter()
        .flat_map(|t| t.join().unwrap())
        .collect();
    assert!(
        bad.is_empty(),
        "{} of {}:\n{}",
        bad.len(),
        seeds.len(),
        bad.join("\n")
    );
}

/// Runs each in a runtime of its own, in virtual time.
fn run_all(seeds: &[u64]) -> Vec<String> {
    let each = seeds.iter().filter_map(|seed| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(true).build().unwrap();
        runtime.block_on(disagreement(*seed))
    });
    each.collect()
}
