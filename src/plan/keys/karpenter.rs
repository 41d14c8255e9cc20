//! The keys of one entry of `karpenter`.

use std::time::Duration;

use super::{
    InitUse, KeyDefault, KeyMap, MapRule, PlanKey, TextCheck, TextRule, ValueKind, choice,
    node_groups, text_rules,
};
use crate::plan::value_reader::{MapFields, ReadValues, ValueReader};
use crate::plan::words::{PoolCapacity, PoolStrategy};

pub static KARPENTER_POOL: KeyMap = KeyMap {
    schema: "KarpenterPoolSchema",
    meaning: "",
    rule: MapRule::Checked(agrees_with_itself),
    keys: &[
        PlanKey {
            name: "nodePool",
            kind: ValueKind::Text(&text_rules::GROUP_NAME),
            default: KeyDefault::Required,
            example: "general",
            meaning: "The NodePool whose nodes are to be replaced.",
            more: "",
            init: InitUse::Written,
        },
        PlanKey {
            name: "strategy",
            kind: ValueKind::Choice(&choice("PoolStrategySchema", PoolStrategy::WORDS)),
            default: KeyDefault::Written("drift"),
            example: "blue-green",
            meaning: "Who replaces its nodes.",
            more: "",
            init: InitUse::Written,
        },
        PlanKey {
            name: "budget",
            kind: ValueKind::Text(&BUDGET),
            default: KeyDefault::Absent("the NodePool's own budgets"),
            example: "1",
            meaning: "With `drift`: how many nodes Karpenter may replace at once, as a number or a share.",
            more: "The NodePool's own budgets hold as well; the smallest counts.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "green",
            kind: ValueKind::Text(&text_rules::GROUP_NAME),
            default: KeyDefault::Absent(
                "`x-green` for `x-blue` and the other way round, else `NAME-green`",
            ),
            example: "general-green",
            meaning: "With `blue-green`: the new NodePool's name.",
            more: "",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "ami",
            kind: ValueKind::Text(&IMAGE_TERM),
            default: KeyDefault::Absent("what the EC2NodeClass selects for the new version"),
            example: "al2023@v20261101",
            meaning: "With `blue-green`: an alias of an image family, or the id of an image, for green's EC2NodeClass.",
            more: "eksup makes an EC2NodeClass for it, a copy of blue's. Needed where blue's selects its image by id.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "capacity",
            kind: ValueKind::Choice(&choice("PoolCapacitySchema", PoolCapacity::WORDS)),
            default: KeyDefault::Written("full"),
            example: "on-demand",
            meaning: "With `blue-green`: when green's nodes are made.",
            more: "",
            init: InitUse::LeftOut,
        },
        node_groups::DRAIN,
        node_groups::TRAFFIC,
        PlanKey {
            name: "changeOwned",
            kind: ValueKind::Boolean,
            default: KeyDefault::Written("false"),
            example: "true",
            meaning: "Consent to change a NodePool that Helm, Argo CD or Flux owns.",
            more: "What keeps the cluster as Git has it takes the change back: eksup says what to write there. It looks at its budget in the NodePool's own step only: one that is taken off during the hop lets Karpenter begin.",
            init: InitUse::LeftOut,
        },
        PlanKey {
            name: "timeout",
            kind: ValueKind::Duration {
                least: Duration::from_secs(300),
            },
            default: KeyDefault::Written("1h"),
            example: "2h",
            meaning: "Longest time without a node of the pool being replaced, before a person is asked.",
            more: "",
            init: InitUse::LeftOut,
        },
    ],
};

/// How many nodes, as Karpenter's budgets spell it.
static BUDGET: TextRule = TextRule {
    schema: None,
    pattern: Some(r"^((100|[0-9]{1,2})%|[1-9][0-9]*)$"),
    example: "10%",
    known: &[],
    check: TextCheck::Fits {
        rule: "write a number of nodes, or a share such as `10%`",
        fits: is_budget,
    },
};

/// An image, as a term of `amiSelectorTerms` names one.
static IMAGE_TERM: TextRule = TextRule {
    schema: None,
    pattern: Some(r"^(ami-[0-9a-f]+|[a-z0-9]+@[A-Za-z0-9.]+)$"),
    example: "al2023@latest",
    known: &[],
    check: TextCheck::Fits {
        rule: "write an alias such as `al2023@latest`, or the id of an image",
        fits: is_image_term,
    },
};

fn is_budget(text: &str) -> bool {
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    match text.strip_suffix('%') {
        Some(share) => digits(share) && share.parse::<u32>().is_ok_and(|s| (1..=100).contains(&s)),
        None => digits(text) && text.parse::<u32>().is_ok_and(|n| n > 0),
    }
}

fn is_image_term(text: &str) -> bool {
    if let Some(id) = text.strip_prefix("ami-") {
        return !id.is_empty() && id.bytes().all(|b| b.is_ascii_hexdigit());
    }
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.');
    text.split_once('@')
        .is_some_and(|(family, version)| word(family) && word(version))
}

/// The keys that only one of the strategies reads.
const KEYS_OF_STRATEGY: [(&str, PoolStrategy); 7] = [
    ("budget", PoolStrategy::Drift),
    ("green", PoolStrategy::BlueGreen),
    ("ami", PoolStrategy::BlueGreen),
    ("capacity", PoolStrategy::BlueGreen),
    ("drain", PoolStrategy::BlueGreen),
    ("traffic", PoolStrategy::BlueGreen),
    ("timeout", PoolStrategy::Drift),
];

/// Notes keys that mean nothing with the strategy; the pool means something all the same.
fn agrees_with_itself(r: &mut ValueReader, f: &MapFields<'_>, values: &ReadValues) -> bool {
    let strategy = values.get("strategy").and_then(|word| word.as_str());
    for (key, of) in KEYS_OF_STRATEGY {
        // How long is waited for is asked of both that replace nodes.
        let both = key == "timeout" && strategy == Some(PoolStrategy::BlueGreen.as_str());
        if f.get(key).is_some() && strategy != Some(of.as_str()) && !both {
            r.note_problem(
                "plan::contradiction",
                f.location_of(key),
                format!(
                    "`{key}` means nothing with `strategy: {}`",
                    strategy.unwrap_or_default()
                ),
                format!("remove `{key}`, or write `strategy: {of}`"),
            );
        }
    }
    if values.get("green").is_some() && values.get("green") == values.get("nodePool") {
        r.note_problem(
            "plan::contradiction",
            f.location_of("green"),
            "blue and green are the same NodePool",
            "give green another name",
        );
    }
    true
}
