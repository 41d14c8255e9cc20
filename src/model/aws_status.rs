//! States that AWS names: those known today as variants, any other as its text, so that a new one is shown as it is and
//! never taken for one of ours.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Declares an enum of states with their spelling at AWS. Each is read from and written as that text.
macro_rules! aws_states {
    ($($(#[$doc:meta])* $name:ident { $($state:ident => $text:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($state,)+
            /// A state that is not known here; empty where AWS named none.
            Other(String),
        }

        impl $name {
            /// As AWS spells it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$state => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$state,)+
                    other => Self::Other(other.to_owned()),
                }
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self::from(text.as_str())
            }
        }

        impl From<$name> for String {
            fn from(state: $name) -> Self {
                state.as_str().to_owned()
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )+};
}

aws_states! {
    /// The state of an EKS cluster.
    ClusterStatus {
        Creating => "CREATING",
        Active => "ACTIVE",
        Deleting => "DELETING",
        Failed => "FAILED",
        Updating => "UPDATING",
        Pending => "PENDING",
    }

    /// The state of a managed node group.
    NodegroupStatus {
        Creating => "CREATING",
        Active => "ACTIVE",
        Updating => "UPDATING",
        Deleting => "DELETING",
        CreateFailed => "CREATE_FAILED",
        DeleteFailed => "DELETE_FAILED",
        Degraded => "DEGRADED",
    }

    /// The state of an EKS add-on.
    AddonStatus {
        Creating => "CREATING",
        Active => "ACTIVE",
        CreateFailed => "CREATE_FAILED",
        Updating => "UPDATING",
        Deleting => "DELETING",
        DeleteFailed => "DELETE_FAILED",
        Degraded => "DEGRADED",
        UpdateFailed => "UPDATE_FAILED",
    }

    /// What an upgrade insight of EKS came to.
    InsightStatus {
        Passing => "PASSING",
        Warning => "WARNING",
        Error => "ERROR",
        Unknown => "UNKNOWN",
    }

    /// How EKS supports a Kubernetes version.
    VersionStatus {
        Unsupported => "UNSUPPORTED",
        StandardSupport => "STANDARD_SUPPORT",
        ExtendedSupport => "EXTENDED_SUPPORT",
    }

    /// What a load balancer says of a target.
    TargetState {
        Initial => "initial",
        Healthy => "healthy",
        Unhealthy => "unhealthy",
        UnhealthyDraining => "unhealthy.draining",
        Unused => "unused",
        Draining => "draining",
        Unavailable => "unavailable",
    }
}

impl TargetState {
    /// Whether the target is being deregistered.
    pub fn is_draining(&self) -> bool {
        matches!(self, Self::Draining | Self::UnhealthyDraining)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_aws_adds_later_is_kept_as_its_text_and_is_none_of_those_known() {
        let known: NodegroupStatus = serde_json::from_str("\"CREATE_FAILED\"").unwrap();
        assert_eq!(known, NodegroupStatus::CreateFailed);
        let new: NodegroupStatus = serde_json::from_str("\"HIBERNATING\"").unwrap();
        assert_eq!(new, NodegroupStatus::Other("HIBERNATING".to_owned()));
        assert_eq!(serde_json::to_string(&new).unwrap(), "\"HIBERNATING\"");
        assert!(TargetState::from("unhealthy.draining").is_draining());
    }
}
