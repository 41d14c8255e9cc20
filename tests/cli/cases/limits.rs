//! What is known before the hops: quotas, addresses, schemas.

use super::{Case, of};

#[test]
fn a_zone_in_which_green_must_have_a_node_needs_addresses_there() {
    let case = Case::new("13-zone-without-ips");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 4, "{found:#?}");
    let short = of(&found, "N003");
    let zone = short.iter().find(|f| f.severity == "blocker");
    let zone = zone.expect("the zone blocks");
    assert!(zone.subject.contains("us-east-1a"), "{zone:?}");
}

#[test]
fn a_green_that_cannot_launch_says_why_in_auto_scalings_words() {
    // The zone is filled up by somebody else after the check.
    let case = Case::new("13-zone-without-ips");
    let base = std::fs::read_to_string(super::healthy_cluster()).unwrap();
    case.write_plan("base.json", &base);
    let fault = ["--fault", "no-free-addresses:us-east-1a@1m"];
    let ended = case.rehearse("plan.yaml", "base.json", &fault);
    assert_ne!(ended.code, 0, "{}", ended.said());
    let said = ended.said();
    assert!(said.contains("no node is Ready in us-east-1a"), "{said}");
    // A line of progress may be cut; the error at the end says all of it.
    let why = "green expense-green is not ready after 30m: no node is Ready in us-east-1a; Auto Scaling says: ";
    let end = said
        .split("\nerror (rehearsal): ")
        .nth(1)
        .expect("it ends with an error");
    let told = end.split(why).nth(1).expect("the cause is told");
    assert!(
        told.contains("not enough free addresses in subnet"),
        "{said}"
    );
}

#[test]
fn more_greens_than_the_cluster_may_have_node_groups_are_told_before_the_first_hop() {
    let case = Case::new("21-many-groups");
    for plan in ["plan.yaml", "plan-recreate.yaml"] {
        let (code, found) = case.check(plan, "snapshot.json");
        assert_eq!(code, 4, "{plan}: {found:#?}");
        let quota = of(&found, "N097");
        let quota = quota.first().expect("the quota is told");
        assert_eq!(quota.severity, "blocker");
        assert!(quota.detail.contains("30"), "{}", quota.detail);
        assert!(quota.fix.contains("nodeGroups"), "{}", quota.fix);
    }
    // The way out: as many groups at a time as fit.
    let groups: Vec<String> = (0..12)
        .map(|n| format!("  - {{blue: team{n:02}}}\n"))
        .collect();
    let plan = case.plan("plan.yaml") + "nodeGroups:\n" + &groups.concat();
    case.write_plan("batch.yaml", &plan);
    let (_, found) = case.check("batch.yaml", "snapshot.json");
    assert!(of(&found, "N097").is_empty(), "{found:#?}");
}

#[test]
fn with_custom_networking_pods_need_addresses_of_the_eniconfigs_subnets_only() {
    let case = Case::new("42-cni-custom-networking");
    let (_, found) = case.check("plan.yaml", "snapshot.json");
    assert!(of(&found, "N003").is_empty(), "{found:#?}");
    let unknown = of(&found, "N030");
    assert!(
        unknown.iter().any(|f| f.detail.contains("ENIConfig")),
        "{found:#?}"
    );
}

#[test]
fn a_configuration_that_the_next_version_does_not_know_is_told_before_the_hop() {
    let case = Case::new("60-addon-config");
    let (code, found) = case.check("plan.yaml", "snapshot.json");
    assert_eq!(code, 4, "{found:#?}");
    let schema = of(&found, "A030");
    let schema = schema.first().expect("the configuration is told");
    assert!(schema.detail.contains("oldKnob"), "{}", schema.detail);
    assert!(
        !schema.detail.contains("true"),
        "values may be secret: {}",
        schema.detail
    );
}
