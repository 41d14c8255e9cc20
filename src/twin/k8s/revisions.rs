//! Names of the revisions of templates.

use std::collections::BTreeMap;

/// Names of revisions. Seeded pods keep the names they came with.
#[derive(Clone, Default)]
pub struct Revisions {
    /// By the set's uid and its template's hash.
    pub(super) names: BTreeMap<(String, String), String>,
    /// The last that was asked for, by the set's uid: the generation it is of, and its name.
    pub(super) last: BTreeMap<String, (i64, String)>,
}
