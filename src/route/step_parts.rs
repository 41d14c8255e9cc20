//! Answers to questions about one kind of step, so that whoever asks does not list the others.

use crate::model::Minor;
use crate::model::eks::{AddonChange, NewNodegroup};
use crate::route::{ShiftSpec, StepSpec};

impl StepSpec {
    /// The version and configuration that an add-on is given.
    pub fn addon_change(&self) -> Option<&AddonChange> {
        let Self::Addon { change, .. } = self else {
            return None;
        };
        Some(change)
    }

    /// The version that the control plane is taken to.
    pub fn control_plane_target(&self) -> Option<Minor> {
        let Self::ControlPlane { to, .. } = self else {
            return None;
        };
        Some(*to)
    }

    /// The green node group that this step creates.
    pub fn created_group(&self) -> Option<&NewNodegroup> {
        let Self::CreateGreen { group, .. } = self else {
            return None;
        };
        Some(group)
    }

    /// The blue that is gone once this step is done.
    pub fn deleted_group(&self) -> Option<&str> {
        match self {
            Self::Retire {
                blue, delete: true, ..
            }
            | Self::DeleteStack { blue, .. } => Some(blue),
            _ => None,
        }
    }

    /// The NodePool whose nodes this step keeps from being replaced.
    pub fn held_pool(&self) -> Option<&str> {
        let Self::HoldPool { pool, .. } = self else {
            return None;
        };
        Some(pool)
    }

    /// The group of a step that comes in a row with those of other groups.
    pub fn serial_group(&self) -> Option<&str> {
        match self {
            Self::HoldPool { pool, .. } | Self::ReleasePool { pool } => Some(pool),
            Self::HoldBlue { blue, .. } | Self::CordonBlue { blue, .. } => Some(blue),
            Self::RemoveWarmPool { blue, .. } => Some(blue),
            Self::AddWarmPool { green, .. } => Some(green),
            Self::Drain { blue, .. }
            | Self::Retire { blue, .. }
            | Self::DeleteStack { blue, .. } => Some(blue),
            Self::HoldGreen { green } | Self::ReleaseGreen { green } => Some(green),
            Self::Addon { .. }
            | Self::ControlPlane { .. }
            | Self::Bake { .. }
            | Self::LaunchTemplate { .. }
            | Self::ConfigurationTemplate { .. }
            | Self::CreateGreen { .. }
            | Self::AttachTargets { .. }
            | Self::AddToRules { .. }
            | Self::Shift { .. }
            | Self::DetachTargets { .. }
            | Self::Soak { .. }
            | Self::DriftPool { .. }
            | Self::RestartFargate { .. }
            | Self::WaitAutoMode { .. } => None,
        }
    }

    /// The target groups and rules whose traffic this step shifts to green.
    pub fn shifted_traffic(&self) -> Option<&ShiftSpec> {
        let Self::Shift { shift, .. } = self else {
            return None;
        };
        Some(shift)
    }

    /// Whether a Kubernetes version changes: of the control plane or of an add-on.
    pub fn changes_version(&self) -> bool {
        matches!(self, Self::ControlPlane { .. } | Self::Addon { .. })
    }

    /// Whether a rollback grows a blue node group before it does anything else of the migration.
    pub fn grows_blue_first(&self) -> bool {
        matches!(
            self,
            Self::HoldBlue {
                grows_first: true,
                ..
            }
        )
    }
}
