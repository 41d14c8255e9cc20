//! How a whole rehearsal scales: wall time and peak memory, each size in a process of its own, and the ratios between
//! them in one run, because machines differ and are shared.
//!
//! `-- check` measures instead what `check` takes of 100 and of 1,000 nodes with twenty pods each: lists read as the API
//! server sends them, the route, the findings; of a plain cluster, and of one whose pods all ask for others. It fails where
//! the time grows much faster than the cluster. The bounds of 1,000 nodes are 10 s and 300 MB.
//!
//! `cargo run --release --example scale` runs expense-dev, 30 and 100 nodes; with `-- fleet-1000` the largest. Where the
//! program itself is built beside it, its size and the time of its smallest command are told as well.

#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark measures wall time and prints it"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the rigs can do more than a measurement needs")]
mod support;

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use eksup::engine::RunOutcome;
use eksup::k8s::convert;
use eksup::model::Inventory;
use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;
use serde::de::DeserializeOwned;
use serde_json::json;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: &[&str] = &["expense-dev", "fleet-30", "fleet-100"];

/// The snapshot to start from: a bundled one, or so many nodes with twenty pods each; `crowded`, with all that is expensive
/// to judge.
fn snapshot(name: &str) -> Snapshot {
    if let Some(nodes) = name.strip_prefix("crowded-").and_then(|n| n.parse().ok()) {
        return crowd(scenario::fleet_snapshot(nodes, 20));
    }
    match name.strip_prefix("fleet-").and_then(|n| n.parse().ok()) {
        Some(nodes) => scenario::fleet_snapshot(nodes, 20),
        None => scenario::find_scenario(name).unwrap_or_else(|| panic!("no scenario `{name}`")),
    }
}

/// Every workload is spread over zones and kept apart on nodes, and its budget never lets a pod go.
fn crowd(mut snapshot: Snapshot) -> Snapshot {
    let mut items = |path: &str| snapshot.kubernetes.remove(path).unwrap_or_default();
    let (mut pods, mut budgets) = (
        items("/api/v1/pods"),
        items("/apis/policy/v1/poddisruptionbudgets"),
    );
    for pod in &mut pods {
        let Some(app) = pod["metadata"]["labels"]["app"].as_str().map(str::to_owned) else {
            continue;
        };
        let selector = json!({"matchLabels": {"app": app}});
        pod["spec"]["topologySpreadConstraints"] = json!([{
            "topologyKey": "topology.kubernetes.io/zone", "maxSkew": 5, "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": selector,
        }]);
        pod["spec"]["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector},
        ]}});
    }
    for budget in &mut budgets {
        budget["spec"]["minAvailable"] = json!("100%");
        budget["status"]["disruptionsAllowed"] = json!(0);
        budget["status"]["desiredHealthy"] = budget["status"]["expectedPods"].clone();
    }
    let mut keep = |path: &str, items| snapshot.kubernetes.insert(path.to_owned(), items);
    keep("/api/v1/pods", pods);
    keep("/apis/policy/v1/poddisruptionbudgets", budgets);
    snapshot
}

fn plan(name: &str, cluster: &str) -> String {
    if name == "expense-dev" {
        return include_str!("../../plans/expense-dev.yaml").to_owned();
    }
    format!("apiVersion: eksup.dev/v1\nkind: UpgradePlan\ncluster: {cluster}\nto: 1.29\n")
}

/// Runs one rehearsal in this process and says what it took.
fn one(name: &str) {
    let snapshot = snapshot(name);
    let plan = plan(name, &snapshot.inventory.cluster.name);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let start = Instant::now();
    let ended = runtime.block_on(async {
        let rig = support::process_rig::Rig::new(&snapshot, &plan, 1);
        let ended = rig.apply().await;
        if ended != RunOutcome::Done {
            eprintln!("{}", rig.log());
        }
        ended
    });
    assert_eq!(ended, RunOutcome::Done);
    println!("{} {}", start.elapsed().as_secs_f64(), peak_kib());
}

/// The most memory this process has had.
fn peak_kib() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    peak.map_or("0", |l| l.trim().trim_end_matches(" kB"))
        .to_owned()
}

/// The lists that findings are made from: a file each, with an object a line as it comes over the wire.
fn write_lists(snapshot: &Snapshot, folder: &Path) {
    for (path, items) in &snapshot.kubernetes {
        let file = folder.join(path.replace('/', "_"));
        let lines: Vec<String> = items.iter().map(ToString::to_string).collect();
        std::fs::write(file, lines.join("\n")).unwrap();
    }
    let inventory = serde_json::to_vec(&snapshot.inventory).unwrap();
    std::fs::write(folder.join("inventory"), inventory).unwrap();
}

/// Reads a list one object after the other, so that no more than the model is kept.
fn read_list<T: DeserializeOwned, R>(folder: &Path, path: &str, convert: fn(T) -> R) -> Vec<R> {
    let Ok(text) = std::fs::read_to_string(folder.join(path.replace('/', "_"))) else {
        return Vec::new();
    };
    let objects = text.lines().map(|line| serde_json::from_str(line));
    objects.map(|o| convert(o.unwrap())).collect()
}

/// Judges a cluster from its lists in this process and says what it took, and how many findings there are.
fn check(folder: &Path) {
    let start = Instant::now();
    let inventory = std::fs::read(folder.join("inventory")).unwrap();
    let mut inventory: Inventory = serde_json::from_slice(&inventory).unwrap();
    inventory.nodes = read_list(folder, "/api/v1/nodes", convert::to_node);
    inventory.pods = read_list(folder, "/api/v1/pods", convert::to_pod);
    inventory.services = read_list(folder, "/api/v1/services", convert::to_service);
    inventory.volumes = read_list(folder, "/api/v1/persistentvolumes", convert::to_volume);
    inventory.pdbs = read_list(
        folder,
        "/apis/policy/v1/poddisruptionbudgets",
        convert::to_pdb,
    );
    inventory.workloads = read_list(
        folder,
        "/apis/apps/v1/deployments",
        convert::deployment_to_workload,
    );
    inventory.workloads.extend(read_list(
        folder,
        "/apis/apps/v1/replicasets",
        convert::replica_set_to_workload,
    ));
    inventory.workloads.extend(read_list(
        folder,
        "/apis/apps/v1/statefulsets",
        convert::stateful_set_to_workload,
    ));
    inventory.workloads.extend(read_list(
        folder,
        "/apis/apps/v1/daemonsets",
        convert::daemon_set_to_workload,
    ));
    inventory.workloads.extend(read_list(
        folder,
        "/apis/batch/v1/jobs",
        convert::job_to_workload,
    ));
    let read = start.elapsed().as_secs_f64();
    let plan = plan("", &inventory.cluster.name);
    let plan = eksup::plan::parse_plan("plan.yaml", &plan)
        .map_err(|e| e.problems)
        .unwrap();
    let route = eksup::route::build_route(&plan, &inventory);
    let findings = eksup::ready::check_readiness(&plan, &inventory, &route);
    println!(
        "{} {} {read} {} {} {}",
        start.elapsed().as_secs_f64(),
        peak_kib(),
        inventory.nodes.len(),
        inventory.pods.len(),
        findings.len()
    );
}

/// What a check took.
struct Checked {
    wall: f64,
    peak_mb: f64,
}

/// Measures a check in a process of its own, the fastest of three.
fn measure_check(name: &str) -> Checked {
    let folder = tempfile::tempdir().unwrap();
    write_lists(&snapshot(name), folder.path());
    let run = || {
        let out = Command::new(std::env::current_exe().unwrap())
            .arg("--check")
            .arg(folder.path())
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{complaint}");
        let text = String::from_utf8(out.stdout).unwrap();
        let numbers = text.split_whitespace().map(|n| n.parse().unwrap());
        numbers.collect::<Vec<f64>>()
    };
    let fastest = (0..3).map(|_| run()).min_by(|a, b| a[0].total_cmp(&b[0]));
    let fastest = fastest.unwrap();
    let [wall, peak, read, nodes, pods, findings] = fastest.as_slice() else {
        panic!("{fastest:?}")
    };
    let peak_mb = peak * 1024.0 / 1e6;
    println!(
        "check {name}: {nodes} nodes, {pods} pods, {findings} findings: {wall:.2} s ({read:.2} s of it reading), peak {peak_mb:.0} MB",
    );
    Checked {
        wall: *wall,
        peak_mb,
    }
}

/// Holds that ten times the nodes take little more than ten times as long, whatever the machine, and the bounds of a
/// thousand.
fn check_sizes() {
    for kind in ["fleet", "crowded"] {
        let small = measure_check(&format!("{kind}-100"));
        let large = measure_check(&format!("{kind}-1000"));
        let ratio = large.wall / small.wall;
        println!("check {kind}: 1,000 nodes take {ratio:.1} times as long as 100");
        assert!(
            ratio <= CHECK_RATIO,
            "more than {CHECK_RATIO} times as long"
        );
        assert!(large.wall <= 10.0, "more than 10 s");
        assert!(large.peak_mb <= 300.0, "more than 300 MB");
    }
}

/// Ten times the pods, and a search for each goes over ten times the nodes until a hundred suit it.
const CHECK_RATIO: f64 = 25.0;

/// The program's size, and how long `--version` takes, the median of many.
fn program() {
    let own = std::env::current_exe().unwrap();
    let Some(eksup) = own.ancestors().nth(2).map(|target| target.join("eksup")) else {
        return;
    };
    let Ok(size) = eksup.metadata().map(|m| m.len()) else {
        println!("{} is not built", eksup.display());
        return;
    };
    let mut times: Vec<f64> = (0..51)
        .map(|_| {
            let start = Instant::now();
            let out = Command::new(&eksup).arg("--version").output().unwrap();
            assert!(out.status.success());
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!(
        "eksup: {:.2} MB, `--version` {:.1} ms",
        size as f64 / 1e6,
        times[times.len() / 2]
    );
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name] = args.as_slice()
        && flag == "--one"
    {
        one(name);
        return;
    }
    match args.as_slice() {
        [flag, folder] if flag == "--check" => return check(Path::new(folder)),
        [word] if word == "check" => return check_sizes(),
        [word, name] if word == "check" => {
            measure_check(name);
            return;
        }
        _ => {}
    }
    let names: Vec<&str> = if args.is_empty() {
        SIZES.to_vec()
    } else {
        args.iter().map(String::as_str).collect()
    };
    let mut first = None;
    println!(
        "{:<14} {:>9} {:>12} {:>8}",
        "cluster", "wall s", "peak MiB", "ratio"
    );
    for name in names {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--one", name])
            .output()
            .unwrap();
        assert!(
            out.status.success(),
            "{name}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let text = String::from_utf8_lossy(&out.stdout);
        let (wall, peak) = text.trim().split_once(' ').unwrap();
        let (wall, peak): (f64, f64) =
            (wall.parse().unwrap(), peak.parse::<f64>().unwrap() / 1024.0);
        let base = *first.get_or_insert(wall);
        println!("{name:<14} {wall:>9.2} {peak:>12.0} {:>8.1}", wall / base);
    }
    program();
}
