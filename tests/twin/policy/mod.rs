//! `eksup policy` is exact: under what it prints every plan is carried out and rolled back, and without any one
//! permission of it something fails and names that permission.

mod grant;
mod scenes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use grant::{Grant, Permission};
use scenes::{SCENES, Scene, Told};

/// Plays a scene in a virtual time of its own.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "tells with --nocapture which scenes take long"
)]
fn play(scene: &Scene, grant: &Grant) -> Told {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let began = std::time::Instant::now();
    let told = runtime.block_on(scene.play(grant));
    // Seen with --nocapture: which ones take long.
    println!("{:>6.1} s  {}", began.elapsed().as_secs_f32(), scene.name);
    told
}

/// Does `f` with each item, on as many threads as there are processors.
fn each<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let mut done = Vec::new();
        while let Some((i, item)) = Some(next.fetch_add(1, Ordering::Relaxed))
            .and_then(|i| items.get(i).map(|item| (i, item)))
        {
            done.push((i, f(item)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        all.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    done.sort_by_key(|(i, _)| *i);
    done.into_iter().map(|(_, r)| r).collect()
}

/// Every scene under the whole policy of its plan, played once.
fn whole() -> &'static [(Grant, Told)] {
    static WHOLE: OnceLock<Vec<(Grant, Told)>> = OnceLock::new();
    WHOLE.get_or_init(|| {
        each(SCENES, |scene| {
            let grant = Grant::of(&scene.plan());
            let told = play(scene, &grant);
            (grant, told)
        })
    })
}

#[test]
fn under_its_own_policy_every_plan_goes_forward_and_back() {
    for (scene, (_, told)) in SCENES.iter().zip(whole()) {
        assert!(told.well, "{}: {}", scene.name, told.said);
        for refused in ["not authorized", "is forbidden", "missing permissions"] {
            assert!(
                !told.said.contains(refused),
                "{}: {}",
                scene.name,
                told.said
            );
        }
    }
}

#[test]
fn every_permission_that_is_printed_is_needed() {
    let used: BTreeSet<&Permission> = whole().iter().flat_map(|(_, told)| &told.used).collect();
    let printed = whole().iter().flat_map(|(grant, _)| grant.permissions());
    let idle: BTreeSet<Permission> = printed.filter(|p| !used.contains(p)).collect();
    assert!(idle.is_empty(), "{idle:#?}");
}

/// For `.ci/policy_check.py`, which holds it against AWS's Service Authorization Reference.
#[test]
fn what_the_twin_asks_of_a_policy_is_written_down() {
    let all: BTreeSet<_> = whole().iter().flat_map(|(_, told)| &told.asked).collect();
    let lines: Vec<String> = all
        .into_iter()
        .map(|(op, action, resource)| {
            serde_json::json!({"op": op, "action": action, "resource": resource}).to_string()
        })
        .collect();
    assert!(lines.len() > 40, "{lines:#?}");
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("../iam-needs.jsonl");
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

#[test]
fn without_any_one_permission_something_fails_and_names_it() {
    // By permission: the quickest scene that needs it.
    let mut needed: BTreeMap<&Permission, (&Scene, &Grant)> = BTreeMap::new();
    for (scene, (grant, told)) in SCENES.iter().zip(whole()) {
        for permission in &told.used {
            needed.entry(permission).or_insert((scene, grant));
        }
    }
    let needed: Vec<_> = needed.into_iter().collect();
    let silent = each(&needed, |(permission, (scene, grant))| {
        println!("without {permission:?}");
        let told = play(scene, &(*grant).clone().without(permission));
        let named = permission.is_named_in(&told.said);
        (!named).then(|| format!("{permission:?} in {}: {}", scene.name, told.said))
    });
    let silent: Vec<String> = silent.into_iter().flatten().collect();
    assert!(silent.is_empty(), "{}", silent.join("\n\n"));
}
