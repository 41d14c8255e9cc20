//! Whether nodes of a self-managed green may join.

use super::*;

fn told(plan: &Plan, change: impl FnOnce(&mut Inventory)) -> Vec<Finding> {
    let mut i = self_managed_cluster();
    let mut newer = i.launch_templates[0].clone();
    for template in [&mut i.launch_templates[0], &mut newer] {
        template.options.instance_profile = Some("nodes".to_owned());
    }
    newer.version = 5;
    newer.image = Some(NEW_IMAGE.to_owned());
    i.launch_templates.push(newer);
    change(&mut i);
    let mut found = judged(plan, &i);
    found.retain(|f| f.code == Code::NodeAccess.as_str());
    found
}

fn groups(entry: &str) -> Plan {
    let text =
        format!("cluster: shop\nto: 1.29\nautoScalingGroups: [{{blue: workers, {entry}}}]\n");
    parse_plan("plan.yaml", &text)
        .map_err(|e| e.problems)
        .unwrap()
}

#[test]
fn blues_ready_nodes_show_that_its_role_may_join_and_another_profile_is_unknown() {
    let (newest, version) = (groups("ami: auto"), groups("launchTemplateVersion: 5"));
    assert_eq!(told(&newest, |_| {}), []);
    // The same profile, by its ARN.
    let arn = "arn:aws:iam::123456789012:instance-profile/team/nodes";
    let same = |i: &mut Inventory| {
        i.launch_templates[1].options.instance_profile = Some(arn.to_owned());
    };
    assert_eq!(told(&version, same), []);
    let other = told(&version, |i| {
        i.launch_templates[1].options.instance_profile = Some("others".to_owned());
    });
    let subject = "Auto Scaling group workers";
    only(&other, Code::NodeAccess, Severity::Warning, subject);
    let none = told(&version, |i| {
        i.launch_templates[1].options.instance_profile = None;
    });
    only(&none, Code::NodeAccess, Severity::Warning, subject);
    let unproved = told(&newest, |i| {
        for node in &mut i.nodes {
            node.ready = "False".to_owned();
        }
    });
    only(&unproved, Code::NodeAccess, Severity::Warning, subject);
}
