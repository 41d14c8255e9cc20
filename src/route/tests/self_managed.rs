//! Auto Scaling groups that no managed node group owns.

use super::*;

fn auto_plan() -> Plan {
    plan("cluster: shop\nto: 1.29\nautoScalingGroups: [{blue: workers, ami: auto}]\n")
}

#[test]
fn a_self_managed_group_moves_with_the_newest_image_of_its_line() {
    let route = build_route(&auto_plan(), &self_managed_cluster()).unwrap();
    let own = ["workers", "workers-green"].map(str::to_owned);
    assert_eq!(route.self_managed, own.into());
    let steps = ids(&route);
    let place = |id: &str| steps.iter().position(|s| *s == id).unwrap();
    let order = [
        "control-plane-1.29",
        "hold-workers",
        "template-workers-green",
        "green-workers-green",
        "cordon-workers",
        "drain-workers",
        "soak-workers",
        "retire-workers",
    ];
    assert!(order.is_sorted_by_key(|id| place(id)), "{steps:?}");
    let StepSpec::LaunchTemplate { image, .. } = &route.steps[place(order[2])].spec else {
        panic!("{steps:?}")
    };
    assert_eq!(image, NEW_IMAGE);
    let green = &route.steps[place(order[3])];
    // All tags of a clone are set as it is made; a second copy would bring back those by which a tool knows blue.
    let StepSpec::CreateGreen { copy_asg_tags, .. } = &green.spec else {
        panic!("{green:?}")
    };
    assert!(!copy_asg_tags);
    assert!(
        green
            .title
            .starts_with("Auto Scaling group workers-green: 3 nodes"),
        "{}",
        green.title
    );
}

#[test]
fn a_self_managed_group_that_the_plan_does_not_list_stays() {
    let plan = plan("cluster: shop\nto: 1.29\n");
    let route = build_route(&plan, &self_managed_cluster()).unwrap();
    assert!(route.self_managed.is_empty());
    assert!(ids(&route).iter().all(|id| !id.contains("workers")));
}

#[test]
fn each_kind_of_group_is_listed_under_its_own_key() {
    let misplaced = plan("cluster: shop\nto: 1.29\nnodeGroups: [{blue: workers}]\n");
    let problems = build_route(&misplaced, &self_managed_cluster()).unwrap_err();
    let told = problems
        .iter()
        .find(|p| p.what == Obstacle::NoSuchGroup)
        .unwrap();
    assert_eq!(
        told.fix,
        "write it under `autoScalingGroups` instead of `nodeGroups`"
    );
}

#[test]
fn what_keeps_a_clone_from_having_the_targets_kubelet_is_a_problem_before_anything_moves() {
    let of = |change: fn(&mut Inventory)| {
        let mut inventory = self_managed_cluster();
        change(&mut inventory);
        codes(&auto_plan(), &inventory)
    };
    let image_missing = vec![Obstacle::ImageMissing.code()];
    // Nobody knows whose image it is, or where the newest of its line is.
    assert_eq!(of(|i| i.images.clear()), image_missing);
    assert_eq!(
        of(|i| i.images[0].name = "shop-golden-7".into()),
        image_missing
    );
    assert_eq!(of(|i| i.optimized_images.clear()), image_missing);
    // A clone launches from one template.
    assert_eq!(
        of(|i| i.asgs.get_mut("workers").unwrap().launch.own_templates = true),
        [Obstacle::TemplateDecides.code()]
    );
    assert_eq!(
        of(|i| i.asgs.get_mut("workers").unwrap().launch.configuration = Some("old".into())),
        [Obstacle::TemplateDecides.code()]
    );
}

#[test]
fn a_self_managed_group_that_is_too_old_for_the_target_is_to_be_listed() {
    let mut inventory = self_managed_cluster();
    for node in &mut inventory.nodes {
        node.kubelet_version = "v1.25.16-eks-473151a".into();
    }
    let plan = plan("cluster: shop\nto: 1.29\n");
    let problems = build_route(&plan, &inventory).unwrap_err();
    let told: Vec<&str> = problems.iter().map(|p| p.subject.as_str()).collect();
    assert_eq!(told, ["Auto Scaling group workers"]);
    assert!(
        problems[0]
            .fix
            .starts_with("list it under `autoScalingGroups`")
    );
}

#[test]
fn the_overrides_of_a_mixed_policy_say_which_types_green_may_get() {
    let mut inventory = self_managed_cluster();
    inventory.launch_templates[0].instance_type = Some("t3.large".into());
    let entry = auto_plan().node_group("workers");
    let types = |i: &Inventory| green_instance_types(i, &i.nodegroups[0], &entry);
    inventory.nodegroups[0].instance_types.clear();
    assert_eq!(types(&inventory), ["t3.large"]);
    inventory.nodegroups[0].instance_types = vec!["m5.large".into(), "m6i.large".into()];
    assert_eq!(types(&inventory), ["m5.large", "m6i.large"]);
}
