//! Which keys each map of a plan may hold.

/// Keys by the map that holds them; the JSON Schema is held to the same table by a test.
pub const PLAN_KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "apiVersion",
            "kind",
            "cluster",
            "region",
            "to",
            "strategy",
            "controlPlane",
            "addons",
            "nodeGroups",
            "drain",
            "traffic",
            "retire",
            "windows",
            "approvals",
            "notify",
        ],
    ),
    ("controlPlane", &["bake", "insights", "timeout"]),
    (
        "addons",
        &["policy", "conflicts", "pins", "skip", "timeout"],
    ),
    (
        "nodeGroups",
        &[
            "blue",
            "green",
            "amiType",
            "releaseVersion",
            "ami",
            "launchTemplateVersion",
            "capacity",
            "instanceTypes",
            "labels",
            "taints",
            "deleteOwned",
            "acceptDegraded",
            "timeout",
        ],
    ),
    ("nodeGroups.capacity", &["surge"]),
    ("nodeGroups.taints", &["key", "value", "effect"]),
    (
        "drain",
        &[
            "order",
            "parallel",
            "podDeadline",
            "nodeDeadline",
            "onDeadline",
            "barePods",
            "emptyDir",
            "hostPath",
            "nodeStorage",
            "jobs",
            "singleReplicas",
            "operatorBudgets",
            "budgets",
            "deadKubelets",
            "bake",
            "canaryBake",
        ],
    ),
    ("drain.consent", &["evict"]),
    (
        "traffic",
        &[
            "routes",
            "steps",
            "bake",
            "minHealthyPercent",
            "timeout",
            "onUnhealthy",
        ],
    ),
    ("traffic.routes", &["rule", "blue", "green"]),
    (
        "traffic.routes.rule",
        &["arn", "loadBalancer", "port", "conditions"],
    ),
    ("retire", &["soak", "then"]),
    ("windows", &["days", "from", "to", "timeZone"]),
    ("approvals", &["before"]),
    ("notify", &["webhook", "sns"]),
    ("notify.webhook", &["url", "on"]),
    ("notify.sns", &["topic", "on"]),
];

/// The keys a map may hold.
pub fn known_keys(of: &str) -> &'static [&'static str] {
    PLAN_KEYS
        .iter()
        .find(|(name, _)| *name == of)
        .map_or(&[], |(_, keys)| keys)
}
