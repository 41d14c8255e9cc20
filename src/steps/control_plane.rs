//! The control plane up one minor: adopt an update in flight, never force, finished only when DescribeUpdate,
//! DescribeCluster and the API server itself agree.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::engine::{Decision, Past, Step, StepError, Undo};
use crate::model::eks::{Cluster, Update, UpdateOf, UpdateStatus};
use crate::model::{Class, Minor};
use crate::steps::World;
use crate::steps::updates::{POLL, Updates, failure, running};

/// EKS says a cluster is on its new version some seconds before every API server answers so.
const SETTLE: Duration = Duration::from_secs(5);

/// One hop of the control plane.
pub struct ControlPlane {
    id: String,
    from: Minor,
    to: Minor,
    timeout: Duration,
    /// Whether an undo asks EKS for its own version rollback; only for the last hop, and only when asked for.
    roll_back: bool,
    updates: Updates,
}

/// What a look sees.
pub struct Seen {
    cluster: Cluster,
    updates: Vec<Update>,
    /// What the API server says of itself, or why it does not answer.
    server: Result<Minor, String>,
}

/// Asks EKS for a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Act {
    to: Minor,
    /// Tells a try after a failure from a repeat after a crash.
    attempt: u32,
}

impl ControlPlane {
    /// The hop from `from` to `to`.
    pub fn new(id: String, from: Minor, to: Minor, timeout: Duration, roll_back: bool) -> Self {
        Self {
            id,
            from,
            to,
            timeout,
            roll_back,
            updates: Updates::default(),
        }
    }

    /// What remains to be done to be at `to`.
    fn toward(
        &self,
        to: Minor,
        kind: &str,
        seen: &Seen,
        past: &Past,
        now: Timestamp,
    ) -> Decision<Act> {
        let at = seen.cluster.version;
        let name = &seen.cluster.name;
        if let Some(update) = seen.updates.iter().find(|u| running(u)) {
            return self.in_flight(update, past, now);
        }
        if at == to {
            if seen.cluster.status != "ACTIVE" {
                return wait(
                    format!("cluster {name} is at {to}, status {}", seen.cluster.status),
                    SETTLE,
                );
            }
            // Every API server of the cluster is replaced in turn; until the last one is, the old version answers too.
            let old = if to == self.to { self.from } else { self.to };
            return match &seen.server {
                Ok(server) if *server == to => {
                    Decision::Done(format!("cluster {name} and its API server are at {to}"))
                }
                Ok(server) if *server == old => wait(
                    format!("EKS says {to}, the API server still answers {server}"),
                    SETTLE,
                ),
                // Neither the old nor the new one: what answers is not EKS's own, and will not change by waiting.
                Ok(server) => Decision::Done(format!(
                    "cluster {name} is at {to}; what answers for its API server calls itself {server}"
                )),
                Err(why) => wait(
                    format!("EKS says {to}, the API server does not answer: {why}"),
                    SETTLE,
                ),
            };
        }
        if (at.ahead_of(to)).abs() != 1 {
            return Decision::Refuse(format!(
                "cluster {name} is at {at}; EKS changes one minor at a time, so this step cannot bring it to {to}. \
                 Somebody changed the cluster's version; run `eksup plan` to see a new route."
            ));
        }
        match seen.cluster.status.as_str() {
            "ACTIVE" => {}
            "FAILED" | "DELETING" => {
                return Decision::Refuse(format!("cluster {name} is {}", seen.cluster.status));
            }
            status => return wait(format!("cluster {name} is {status}"), POLL),
        }
        if let Some(last) = last_since(seen, to, kind, past) {
            match last.status {
                UpdateStatus::Failed | UpdateStatus::Cancelled => {
                    return Decision::Refuse(format!(
                        "EKS could not take cluster {name} to {to} (update {}): {}. The cluster stays on {at}; \
                         mend the cause and run `eksup apply` again.",
                        last.id,
                        failure(last)
                    ));
                }
                // DescribeCluster is eventually consistent with DescribeUpdate.
                UpdateStatus::Successful => {
                    return wait(
                        format!("update {} succeeded, the cluster still reads {at}", last.id),
                        SETTLE,
                    );
                }
                UpdateStatus::InProgress | UpdateStatus::Unknown => {}
            }
        }
        Decision::Act(Act {
            to,
            attempt: past.attempt,
        })
    }

    fn in_flight(&self, update: &Update, past: &Past, now: Timestamp) -> Decision<Act> {
        let since = update.created_at.or(past.last_act_at);
        let for_long = since.is_some_and(|t| {
            now.duration_since(t)
                > SignedDuration::try_from(self.timeout).unwrap_or(SignedDuration::MAX)
        });
        if for_long {
            return Decision::Refuse(format!(
                "update {} ({}) has been in progress for longer than {}s; EKS cannot stop it. Ask AWS Support, and \
                 run `eksup apply` again to go on waiting for it.",
                update.id,
                update.kind,
                self.timeout.as_secs()
            ));
        }
        let params: Vec<String> = update
            .params
            .iter()
            .map(|(k, v)| format!("{k} {v}"))
            .collect();
        wait(
            format!(
                "EKS update {} ({}, {}) is in progress",
                update.id,
                update.kind,
                params.join(", ")
            ),
            POLL,
        )
    }
}

/// The newest update of that kind to `to` that began after the last act.
fn last_since<'a>(seen: &'a Seen, to: Minor, kind: &str, past: &Past) -> Option<&'a Update> {
    // Clocks here and at AWS may differ by a little.
    let since = past
        .last_act_at?
        .saturating_sub(SignedDuration::from_secs(120))
        .ok()?;
    seen.updates
        .iter()
        .filter(|u| u.kind == kind)
        .filter(|u| {
            u.params
                .get("Version")
                .is_some_and(|v| *v == to.to_string())
        })
        .filter(|u| u.created_at.is_none_or(|t| t >= since))
        .max_by_key(|u| u.created_at)
}

fn wait<A>(why: String, recheck: Duration) -> Decision<A> {
    Decision::Wait { why, recheck }
}

impl Step<World> for ControlPlane {
    type Seen = Seen;
    type Before = Minor;
    type Act = Act;

    async fn observe(&self, world: &World) -> Result<Seen, StepError> {
        let cluster = world.aws.describe_cluster(&world.cluster).await?;
        let updates = self.updates.read(world, UpdateOf::Cluster).await?;
        let server = match world.kube.server_version().await {
            Ok(minor) => Ok(minor),
            // The API server moves during an update; that is no failure of the step.
            Err(error) if matches!(error.class, Class::Transient | Class::Throttled) => {
                Err(error.message)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Seen {
            cluster,
            updates,
            server,
        })
    }

    fn decide(&self, seen: &Seen, past: &Past, now: Timestamp) -> Decision<Act> {
        if seen.cluster.version > self.to {
            return Decision::Done(format!(
                "cluster {} is beyond {} already, at {}",
                seen.cluster.name, self.to, seen.cluster.version
            ));
        }
        self.toward(self.to, "VersionUpdate", seen, past, now)
    }

    fn before(&self, seen: &Seen) -> Minor {
        seen.cluster.version
    }

    async fn act(&self, world: &World, act: &Act) -> Result<(), StepError> {
        let token = world.token(&self.id, &format!("{}#{}", act.to, act.attempt));
        match world
            .aws
            .update_cluster_version(&world.cluster, act.to, &token)
            .await
        {
            Ok(_) => Ok(()),
            Err(e) if must_match(&e.message) => Err(StepError::Reroute(e.message)),
            Err(e) => Err(e.into()),
        }
    }

    fn undo(&self) -> Undo {
        if self.roll_back {
            Undo::Restore
        } else {
            // The old kubelets are within skew of the new API server, so blue serves as well under it.
            Undo::Nothing
        }
    }

    fn restore(&self, before: &Minor, seen: &Seen, now: Timestamp) -> Decision<Act> {
        if *before == seen.cluster.version.next() {
            return Decision::Done(format!(
                "cluster {} is below {before} already",
                seen.cluster.name
            ));
        }
        // A rollback that failed a moment ago is not asked for again.
        let recent = now.saturating_sub(SignedDuration::from_mins(15)).ok();
        let past = Past {
            last_act_at: recent,
            acts: 1,
            ..Past::default()
        };
        match self.toward(*before, "VersionRollback", seen, &past, now) {
            // A rollback has a token of its own: the way up may have used the same version number before.
            Decision::Act(act) => Decision::Act(Act {
                to: act.to,
                attempt: 1000 + act.attempt,
            }),
            other => other,
        }
    }

    fn describe(&self, act: &Act) -> String {
        format!(
            "UpdateClusterVersion {} -> {}",
            if act.to == self.to {
                self.from
            } else {
                self.to
            },
            act.to
        )
    }
}

/// Whether EKS still enforces that node groups match the control plane before a hop (FACTS A2: it did until 2023).
fn must_match(message: &str) -> bool {
    message.contains("must be updated to match cluster version")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn step() -> ControlPlane {
        ControlPlane::new(
            "control-plane-1.28".into(),
            Minor::new(27),
            Minor::new(28),
            Duration::from_secs(3600),
            false,
        )
    }

    fn seen(version: u16, status: &str, server: u16) -> Seen {
        Seen {
            cluster: Cluster {
                name: "c".into(),
                arn: "arn".into(),
                version: Minor::new(version),
                status: status.into(),
                endpoint: None,
                certificate_authority: None,
                platform_version: None,
                role_arn: None,
                vpc_id: None,
                subnet_ids: vec![],
                security_group_ids: vec![],
                cluster_security_group_id: None,
                service_ipv4_cidr: None,
                support_type: None,
                authentication_mode: None,
                auto_mode: false,
                health: vec![],
                tags: BTreeMap::new(),
                created_at: None,
            },
            updates: vec![],
            server: Ok(Minor::new(server)),
        }
    }

    fn update(status: UpdateStatus, created: &str) -> Update {
        Update {
            id: "u1".into(),
            status,
            kind: "VersionUpdate".into(),
            params: BTreeMap::from([("Version".to_owned(), "1.28".to_owned())]),
            created_at: Some(at(created)),
            errors: vec![],
        }
    }

    const NOW: &str = "2026-11-21T09:00:00Z";

    #[test]
    fn eks_alone_saying_so_is_not_done() {
        let decision = step().decide(&seen(28, "ACTIVE", 27), &Past::default(), at(NOW));
        assert!(
            matches!(decision, Decision::Wait { why, .. } if why.contains("still answers 1.27"))
        );
        assert!(matches!(
            step().decide(&seen(28, "ACTIVE", 28), &Past::default(), at(NOW)),
            Decision::Done(_)
        ));
    }

    #[test]
    fn an_api_server_behind_a_proxy_of_another_version_is_not_waited_for_for_ever() {
        let decision = step().decide(&seen(28, "ACTIVE", 36), &Past::default(), at(NOW));
        assert!(matches!(decision, Decision::Done(how) if how.contains("1.36")));
    }

    #[test]
    fn an_update_in_flight_is_adopted() {
        let mut seen = seen(27, "UPDATING", 27);
        seen.updates
            .push(update(UpdateStatus::InProgress, "2026-11-21T08:55:00Z"));
        assert!(
            matches!(step().decide(&seen, &Past::default(), at(NOW)), Decision::Wait { why, .. } if why.contains("u1"))
        );
    }

    #[test]
    fn a_failed_update_of_an_earlier_day_does_not_stop_a_new_try() {
        let mut seen = seen(27, "ACTIVE", 27);
        seen.updates
            .push(update(UpdateStatus::Failed, "2026-11-20T08:55:00Z"));
        assert_eq!(
            step().decide(&seen, &Past::default(), at(NOW)),
            Decision::Act(Act {
                to: Minor::new(28),
                attempt: 0
            })
        );
        let past = Past {
            last_act_at: Some(at("2026-11-20T08:55:00Z")),
            acts: 1,
            ..Past::default()
        };
        assert!(matches!(
            step().decide(&seen, &past, at(NOW)),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn a_cluster_two_minors_away_is_refused() {
        assert!(matches!(
            step().decide(&seen(26, "ACTIVE", 26), &Past::default(), at(NOW)),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn the_old_demand_that_node_groups_match_is_recognised() {
        assert!(must_match(
            "Nodegroups eks-stg-gp must be updated to match cluster version 1.18 before updating cluster version"
        ));
    }
}
