//! Who owns what: targets that were registered one by one, and what an Auto Scaling group has beside tags.

use super::{Case, of};

/// The situation: instances are in the target group one by one, and the Auto Scaling group is not attached to it.
#[test]
fn targets_registered_one_by_one_are_deregistered_and_a_healthy_one_is_never_called_draining() {
    let case = Case::new("16-manual-targets");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{findings:#?}");
    let planned = case.run(&["plan", "plan.yaml", "--snapshot", "snapshot.json"]);
    let said = planned.said();
    assert!(said.contains("registered one by one"), "{said}");
    let ended = case.rehearse("plan.yaml", "snapshot.json", &["-v"]);
    let said = ended.said();
    assert_eq!(ended.code, 0, "{said}");
    assert!(said.contains("deregister i-"), "{said}");
    let wrong = said
        .lines()
        .find(|l| l.contains("draining: ") && l.contains("(healthy)"));
    assert_eq!(wrong, None);
}

/// The situation: AZRebalance is suspended by the team, and the group has tags of its own.
#[test]
fn what_was_suspended_for_blue_is_suspended_for_green_and_its_tags_are_copied() {
    let case = Case::new("32-asg-extras");
    let (code, findings) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 0, "{findings:#?}");
    let told = of(&findings, "N053");
    assert!(
        told.len() == 1
            && told[0]
                .detail
                .contains("eksup suspends AZRebalance for expense-green too"),
        "{findings:#?}"
    );
    let ended = case.rehearse("plan.yaml", "snapshot.json", &["-v"]);
    let said = ended.said();
    assert_eq!(ended.code, 0, "{said}");
    for done in [
        "suspend AZRebalance of Auto Scaling group eks-expense-green",
        "tags of blue to Auto Scaling group eks-expense-green",
    ] {
        assert!(said.contains(done), "{done}: {said}");
    }
}
