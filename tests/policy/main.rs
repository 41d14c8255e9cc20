//! `eksup policy` is exact: under what it prints every plan is carried out and taken back, and without any one
//! permission of it something fails and names that permission.

mod grant;
#[path = "../common/rig.rs"]
mod rig;
mod scenes;

use std::collections::BTreeMap;

use grant::{Grant, Permission};
use scenes::{SCENES, Scene, Told};

/// What a scene said and needed, under the policy of its own plan.
async fn full(scene: &Scene) -> (Grant, Told) {
    let grant = Grant::of(&scene.plan());
    let told = scene.play(&grant).await;
    assert!(told.well, "{}: {}", scene.name, told.said);
    for refused in ["not authorized", "is forbidden", "missing permissions"] {
        assert!(
            !told.said.contains(refused),
            "{}: {}",
            scene.name,
            told.said
        );
    }
    (grant, told)
}

#[tokio::test(start_paused = true)]
async fn under_its_own_policy_every_plan_goes_forward_and_back() {
    for scene in SCENES {
        full(scene).await;
    }
}

#[tokio::test(start_paused = true)]
async fn without_any_one_permission_something_fails_and_names_it() {
    // By permission: the first scene that needs it. Scenes are in the order of how long they take.
    let mut needed: BTreeMap<Permission, &Scene> = BTreeMap::new();
    let mut printed: BTreeMap<Permission, &Scene> = BTreeMap::new();
    for scene in SCENES {
        let (grant, told) = full(scene).await;
        for permission in grant.permissions() {
            printed.entry(permission).or_insert(scene);
        }
        for permission in told.used {
            needed.entry(permission).or_insert(scene);
        }
    }
    let idle: Vec<_> = printed.keys().filter(|p| !needed.contains_key(p)).collect();
    assert!(
        idle.is_empty(),
        "printed, and no scene needs them: {idle:#?}"
    );
    let mut silent = Vec::new();
    for (permission, scene) in &needed {
        let grant = Grant::of(&scene.plan()).without(permission);
        let told = scene.play(&grant).await;
        if !permission.is_named_in(&told.said) {
            silent.push(format!("{permission:?} in {}: {}", scene.name, told.said));
        }
    }
    assert!(
        silent.is_empty(),
        "{} of {}: {}",
        silent.len(),
        needed.len(),
        silent.join("\n\n")
    );
}
