//! Updates of EKS, as the account keeps them.

use jiff::Timestamp;

/// What an update belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpdateOwner {
    Cluster,
    Nodegroup(String),
    Addon(String),
}

/// An update of EKS.
#[derive(Clone, Debug)]
pub struct EksUpdate {
    pub id: String,
    pub owner: UpdateOwner,
    /// InProgress Failed Cancelled Successful.
    pub status: String,
    pub kind: String,
    pub params: Vec<(String, String)>,
    pub created: Timestamp,
    pub errors: Vec<EksIssue>,
    /// The code it is going to fail with. It is settled when the update begins, so that what follows is of one piece.
    pub fails_with: Option<String>,
    /// While Auto Mode's nodes are rolled back: until when EKS waits for them (EKS-RB-9).
    pub nodes_until: Option<Timestamp>,
    pub cancellation: Option<UpdateCancellation>,
}

/// Somebody, or EKS itself, has asked for an update's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateCancellation {
    /// InProgress Failed Successful.
    pub status: &'static str,
    pub reason: &'static str,
}

/// An issue of a health list, or an error of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EksIssue {
    pub code: String,
    pub message: String,
    pub resources: Vec<String>,
}
