//! The work of the controllers, one look at one object at a time.

use std::time::Duration;

use super::store::ObjectName;

/// A piece of work: one controller looks at one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControllerWork {
    Deployment(ObjectName),
    /// Has the deployment moved in time?
    ProgressDeadline(ObjectName),
    ReplicaSet(ObjectName),
    StatefulSet(ObjectName),
    DaemonSet(ObjectName),
    /// A daemon set's pod on one node.
    Daemon(ObjectName, String),
    Job(ObjectName),
    /// A pod that an operator is to make again.
    Operator(ObjectName),
    /// A database whose primary may have to move.
    Roles(ObjectName),
    /// A node whose instance managers Longhorn looks at.
    Longhorn(String),
    /// A pod that Strimzi's operator is to roll.
    Roll(ObjectName),
    Budget(ObjectName),
    /// What a namespace uses of a quota.
    Quota(ObjectName),
    /// A service's slices.
    EndpointSlices(ObjectName),
    Schedule(ObjectName),
    /// All pods no node was found for.
    RetryPending,
    Taints(String),
    /// What the object with this uid owned.
    Orphans(String),
    Namespace(String),
    Claim(ObjectName),
    Attachment(String),
    /// Attachments of volumes that no pod of the node uses any more.
    Detach(String),
    /// The same for a node that will never say it has unmounted them.
    ForceDetach(String),
}

impl ControllerWork {
    /// How long after a change the real controller gets to it; measured on a real control plane where it was seen.
    pub(super) fn reaction_delay(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Budget(_) => 8,
            Self::StatefulSet(_) | Self::Deployment(_) | Self::ProgressDeadline(_) => 10,
            Self::ReplicaSet(_) => 14,
            Self::Schedule(_) | Self::Quota(_) => 25,
            Self::DaemonSet(_) | Self::EndpointSlices(_) => 50,
            Self::Job(_) => 100,
            Self::Taints(_) | Self::Orphans(_) => 150,
            Self::Daemon(..) | Self::Claim(_) => 300,
            Self::Attachment(_) => 1500,
            Self::Operator(_) => 3000,
            Self::Longhorn(_) => 5000,
            Self::Roles(_) | Self::Roll(_) => 8000,
            Self::RetryPending | Self::Namespace(_) | Self::Detach(_) | Self::ForceDetach(_) => {
                1000
            }
        })
    }
}
