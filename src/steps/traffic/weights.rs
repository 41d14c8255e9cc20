//! Weights of a rule: what share green has, and what to write so that it has another. Pure.

use crate::model::elb::WeightedTargetGroup;

/// ELB takes weights from 0 to 999.
const MAX_WEIGHT: i64 = 999;

/// Green's percent of what blue and green have together; None when the rule names neither or both have no weight.
pub fn green_percent(forward: &[WeightedTargetGroup], blue: &str, green: &str) -> Option<u32> {
    let weight = |arn: &str| {
        forward
            .iter()
            .find(|t| t.arn == arn)
            .map_or(0, |t| i64::from(t.weight))
    };
    let (b, g) = (weight(blue), weight(green));
    (b + g > 0).then(|| u32::try_from(g * 100 / (b + g)).unwrap_or(0))
}

/// The rule's target groups with green at `percent` of what blue and green have together. Others keep their share:
/// when the pair's sum is too small to be split finely enough, every weight grows alike.
pub fn set_green_percent(
    forward: &[WeightedTargetGroup],
    blue: &str,
    green: &str,
    percent: u32,
) -> Vec<WeightedTargetGroup> {
    // The sum of the pair stays, so that target groups of others keep their share of the rule.
    let pair: i64 = forward
        .iter()
        .filter(|t| t.arn == blue || t.arn == green)
        .map(|t| i64::from(t.weight))
        .sum::<i64>()
        .max(1);
    let others: i64 = forward
        .iter()
        .filter(|t| t.arn != blue && t.arn != green)
        .map(|t| i64::from(t.weight))
        .max()
        .unwrap_or(0);
    // As fine as one percent where the others' weights leave room for it.
    let wanted = if pair % 100 == 0 { 1 } else { 100 };
    let room = (MAX_WEIGHT / pair.max(others).max(1)).max(1);
    let factor = wanted.min(room);
    let sum = pair * factor;
    // Between 0 and 100 both sides keep at least one part: a share that rounding makes 0 is never judged by traffic.
    let percent = i64::from(percent.min(100));
    let mut on_green = sum * percent / 100;
    // A share that is asked for is never rounded away, on either side.
    if percent > 0 && on_green == 0 {
        on_green = 1;
    }
    if percent < 100 && on_green == sum && sum > 1 {
        on_green = sum - 1;
    }
    // Target groups of others are multiplied by the same factor, so that their share of the traffic stays what it was.
    let mut out: Vec<WeightedTargetGroup> = forward
        .iter()
        .filter(|t| t.arn != green)
        .map(|t| {
            let weight = if t.arn == blue {
                sum - on_green
            } else {
                i64::from(t.weight) * factor
            };
            WeightedTargetGroup {
                arn: t.arn.clone(),
                weight: i32::try_from(weight).unwrap_or(0),
            }
        })
        .collect();
    out.push(WeightedTargetGroup {
        arn: green.to_owned(),
        weight: i32::try_from(on_green).unwrap_or(0),
    });
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn group(arn: &str, weight: i32) -> WeightedTargetGroup {
        WeightedTargetGroup {
            arn: arn.into(),
            weight,
        }
    }

    #[test]
    fn a_lone_target_group_of_weight_one_can_be_split() {
        let forward = set_green_percent(&[group("b", 1)], "b", "g", 25);
        assert_eq!(forward, [group("b", 75), group("g", 25)]);
        assert_eq!(green_percent(&forward, "b", "g"), Some(25));
    }

    #[test]
    fn a_third_target_group_keeps_its_share() {
        let forward = set_green_percent(&[group("b", 3), group("x", 1)], "b", "g", 50);
        let all: i32 = forward.iter().map(|t| t.weight).sum();
        let x = forward.iter().find(|t| t.arn == "x").unwrap().weight;
        assert_eq!(x * 4, all);
    }

    proptest! {
        #[test]
        fn weights_are_legal_and_never_all_zero(b in 0i32..=999, g in 0i32..=999, x in 0i32..=999, p in 0u32..=100) {
            prop_assume!(b + g > 0 && b + g <= 999);
            let forward = set_green_percent(&[group("b", b), group("x", x), group("g", g)], "b", "g", p);
            prop_assert!(forward.iter().all(|t| (0..=999).contains(&t.weight)));
            prop_assert!(forward.iter().map(|t| t.weight).sum::<i32>() > 0);
            let got = i64::from(green_percent(&forward, "b", "g").unwrap());
            prop_assert_eq!(got == 0 , p == 0 || forward.iter().find(|t| t.arn == "g").unwrap().weight * 100 < forward.iter().filter(|t| t.arn != "x").map(|t| t.weight).sum::<i32>());
            prop_assert_eq!(got == 100, p == 100 || b + g == 1 && p > 0);
        }
    }
}
