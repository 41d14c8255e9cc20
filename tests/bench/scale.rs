//! How a whole rehearsal scales: wall time and peak memory, each size in a process of its own, and the ratios between
//! them in one run, because machines differ and are shared.
//!
//! `cargo run --release --example scale` runs expense-dev, 30 and 100 nodes; with `-- fleet-1000` the largest. Where the
//! program itself is built beside it, its size and the time of its smallest command are told as well.

#[path = "../upgrade/rig.rs"]
#[expect(dead_code, reason = "the rig can do more than a measurement needs")]
mod rig;

use std::process::Command;
use std::time::Instant;

use eksup::engine::Ended;
use eksup::model::snapshot::Snapshot;
use eksup::twin::scenario;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SIZES: &[&str] = &["expense-dev", "fleet-30", "fleet-100"];

/// The snapshot to start from: a bundled one, or so many nodes with twenty pods each.
fn snapshot(name: &str) -> Snapshot {
    match name.strip_prefix("fleet-").and_then(|n| n.parse().ok()) {
        Some(nodes) => scenario::fleet(nodes, 20),
        None => scenario::named(name).unwrap_or_else(|| panic!("no scenario `{name}`")),
    }
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
        let rig = rig::Rig::new(&snapshot, &plan, 1);
        let ended = rig.apply().await;
        if ended != Ended::Done {
            eprintln!("{}", rig.log());
        }
        ended
    });
    assert_eq!(ended, Ended::Done);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status
        .lines()
        .find_map(|l| l.strip_prefix("VmHWM:"))
        .map_or("0", |l| l.trim().trim_end_matches(" kB"));
    println!("{} {peak}", start.elapsed().as_secs_f64());
}

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
