//! Names of the revisions of templates.

use std::collections::BTreeMap;

use serde_json::Value;

/// Names of revisions. Seeded pods keep the names they came with.
#[derive(Clone, Default)]
pub struct Revisions {
    /// By the set's uid and its template's hash.
    pub(super) names: BTreeMap<(String, String), String>,
    /// The last that was asked for, by the set's uid: the generation it is of, and its name.
    pub(super) last: BTreeMap<String, (i64, String)>,
    /// The templates of stateful sets' revisions that were seen, by the set's uid and the revision's name.
    pub(super) templates: BTreeMap<(String, String), Value>,
}
