//! How a command ends that blocking findings stop.

use super::error::{RunError, RunErrorKind};
use crate::ready::finding_groups::group_findings;
use crate::ready::{Finding, Severity};

/// How many block, told as they are: once for all objects with the same way out.
pub fn count_blockers(found: &[Finding]) -> usize {
    let groups = group_findings(found);
    let blockers = groups.iter().filter(|g| g.severity == Severity::Blocker);
    blockers.count()
}

/// The end of a command that blocking findings stop.
pub fn not_ready_error(cluster: &str, found: &[Finding], next: &str) -> RunError {
    let groups = group_findings(found);
    let blocks: Vec<_> = groups
        .iter()
        .filter(|g| g.severity == Severity::Blocker)
        .collect();
    // The first one is named: with a dozen, a reader of a log's last line still learns what to begin with.
    let first = blocks
        .first()
        .map(|g| {
            format!(
                "{} {}",
                g.code,
                g.describe_count().unwrap_or_else(|| g.join_subjects())
            )
        })
        .unwrap_or_default();
    let more = match blocks.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    RunError::new(
        RunErrorKind::NotReady,
        format!("cluster {cluster} is not ready: {first}{more}"),
    )
    .with_state(vec![
        "nothing was changed: traffic and nodes are unchanged".to_owned(),
    ])
    .with_next_command(next)
}
