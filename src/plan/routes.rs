//! The traffic routes of a plan: which rule, which pair of target groups.

use super::keys::known_keys;
use super::tree::{TreeNode, TreeValue};
use super::types::{RuleRef, TrafficRoute};
use super::value_reader::ValueReader;

/// Reads `traffic.routes`.
pub fn read_routes(r: &mut ValueReader, node: &TreeNode) -> Vec<TrafficRoute> {
    let mut all = Vec::new();
    for (i, item) in r
        .read_list(
            node,
            "traffic.routes",
            "- {rule: every, blue: apps-blue-tg, green: apps-green-tg}",
        )
        .iter()
        .enumerate()
    {
        let f = r.read_fields(
            item,
            &format!("traffic.routes[{i}]"),
            known_keys("traffic.routes"),
        );
        let mut side = |key: &str| match f.get(key) {
            Some(n) => r.read_text(n, &f.path_of(key), &format!("apps-{key}-tg")),
            None => {
                r.note_problem(
                    "plan::missing",
                    f.at,
                    format!("`{}` is missing", f.path_of(key)),
                    format!("write `{key}: NAME`, a target group's name or ARN"),
                );
                None
            }
        };
        let (blue, green) = (side("blue"), side("green"));
        let rule = match f.get("rule") {
            Some(n) => read_rule(r, n, &f.path_of("rule")),
            None => Some(RuleRef::Every),
        };
        let (Some(blue), Some(green), Some(rule)) = (blue, green, rule) else {
            continue;
        };
        if blue == green {
            r.note_problem("plan::contradiction", f.location_of("green"), format!("blue and green are the same target group, `{blue}`"), "a shift needs two target groups; leave `traffic.routes` out if green shall join blue's own");
        }
        let route = TrafficRoute { rule, blue, green };
        if all.contains(&route) {
            r.note_problem(
                "plan::duplicate",
                f.at,
                "this route is in the plan twice",
                "remove one of the two",
            );
        } else {
            all.push(route);
        }
    }
    all
}

fn read_rule(r: &mut ValueReader, node: &TreeNode, path: &str) -> Option<RuleRef> {
    if matches!(node.what, TreeValue::Scalar { .. }) {
        let read = r.read_choice(node, path, &[("every", RuleRefWord::Every)]);
        if read.is_none()
            && let Some(last) = r.problems.last_mut()
        {
            last.help = Some("write `rule: every`, `rule: {arn: ARN}` or `rule: {loadBalancer: NAME, port: 443, conditions: [...]}`".to_owned());
        }
        return read.map(|RuleRefWord::Every| RuleRef::Every);
    }
    let f = r.read_fields(node, path, known_keys("traffic.routes.rule"));
    let arn = f.get("arn").map(|n| {
        let rule = "write a listener rule's or a listener's ARN";
        r.read_text_where(
            n,
            &f.path_of("arn"),
            "arn:aws:elasticloadbalancing:...:listener-rule/...",
            rule,
            |t| t.starts_with("arn:") && t.contains(":listener"),
        )
    });
    let by_match = ["loadBalancer", "port", "conditions"]
        .iter()
        .any(|k| f.get(k).is_some());
    if let Some(arn) = arn {
        if by_match {
            r.note_problem(
                "plan::contradiction",
                f.at,
                format!("`{path}` names its rule twice, by ARN and by load balancer"),
                "keep `arn`, or `loadBalancer` and `port`",
            );
        }
        return arn.map(RuleRef::Arn);
    }
    let load_balancer = match f.get("loadBalancer") {
        Some(n) => r.read_text(n, &f.path_of("loadBalancer"), "apps-alb"),
        None => {
            r.note_problem(
                "plan::missing",
                f.at,
                format!("`{path}` does not say which rule"),
                "write `arn: ARN`, or `loadBalancer: NAME` and `port: 443`",
            );
            return None;
        }
    };
    let port = match f.get("port") {
        Some(n) => r
            .read_integer(n, &f.path_of("port"), 1..=65_535)
            .and_then(|p| u16::try_from(p).ok()),
        None => {
            r.note_problem(
                "plan::missing",
                f.at,
                format!("`{}` is missing", f.path_of("port")),
                "write the listener's port, such as `port: 443`",
            );
            None
        }
    };
    let mut conditions = Vec::new();
    if let Some(n) = f.get("conditions") {
        for (i, item) in r
            .read_list(n, &f.path_of("conditions"), "[\"path-pattern=/api/*\"]")
            .iter()
            .enumerate()
        {
            let path = format!("{}[{i}]", f.path_of("conditions"));
            conditions.extend(r.read_text_where(
                item,
                &path,
                "path-pattern=/api/*",
                "a condition is a field, `=` and a value",
                |t| {
                    t.split_once('=')
                        .is_some_and(|(k, v)| !k.is_empty() && !v.is_empty())
                },
            ));
        }
    }
    Some(RuleRef::Match {
        load_balancer: load_balancer?,
        port: port?,
        conditions,
    })
}

#[derive(Clone, Copy)]
enum RuleRefWord {
    Every,
}

/// Reads `traffic.steps`.
pub fn read_traffic_steps(r: &mut ValueReader, node: &TreeNode) -> Option<Vec<u32>> {
    let mut all: Vec<u32> = Vec::new();
    let items = r.read_list(node, "traffic.steps", "[10, 50, 100]");
    for (i, item) in items.iter().enumerate() {
        let percent = r
            .read_integer(item, &format!("traffic.steps[{i}]"), 1..=100)
            .and_then(|n| u32::try_from(n).ok())?;
        if let Some(before) = all.last().filter(|before| **before >= percent) {
            r.note_problem(
                "plan::value",
                item.at,
                format!("{percent} % after {before} % is no step forward"),
                "write rising percentages, such as `[10, 50, 100]`",
            );
            return None;
        }
        all.push(percent);
    }
    match all.last() {
        Some(100) => Some(all),
        Some(last) => {
            r.note_problem(
                "plan::value",
                node.at,
                format!("the last step is {last} %, so blue would keep traffic forever"),
                "end the list with 100",
            );
            None
        }
        None => {
            if matches!(node.what, TreeValue::List(_)) {
                r.note_problem(
                    "plan::value",
                    node.at,
                    "`traffic.steps` is empty",
                    "write at least `[100]`",
                );
            }
            None
        }
    }
}
