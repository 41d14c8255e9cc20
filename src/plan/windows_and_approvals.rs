//! Times of maintenance windows, and the kinds of steps that approvals can be asked for.

use crate::model::maintenance_window::END_OF_DAY_MINUTES;

/// Minutes from midnight of `HH:MM`; `24:00` is the day's end.
pub fn parse_minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |t: &str| {
        (t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()))
            .then(|| t.parse::<u16>().ok())
            .flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= END_OF_DAY_MINUTES).then_some(all)
}

/// The kinds of steps, by which approvals can be asked for; the route holds itself to them by a test.
pub const STEP_KINDS: &[&str] = &[
    "add-to-rules",
    "add-warm-pool",
    "addon",
    "attach-targets",
    "bake",
    "control-plane",
    "cordon-blue",
    "create-green",
    "delete-stack",
    "detach-targets",
    "drain",
    "drift-pool",
    "hold-blue",
    "hold-green",
    "hold-pool",
    "launch-template",
    "release-green",
    "release-pool",
    "remove-warm-pool",
    "restart-fargate",
    "retire",
    "shift",
    "soak",
    "wait-auto-mode",
];
