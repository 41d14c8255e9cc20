//! Whether the configuration of add-ons suits every version that the route takes them through.

use std::collections::BTreeSet;

use super::Finding;
use super::codes::Code;
use super::input::ReadinessInput;
use crate::model::{AddonVersion, Inventory, addon_schema};
use crate::route::Route;

/// The versions on a route of the add-ons that have a configuration.
pub fn configured_versions(
    route: &Route,
    inventory: &Inventory,
) -> BTreeSet<(String, AddonVersion)> {
    let configured = |name: &str| {
        let mut addons = inventory.addons.iter();
        addons.any(|a| a.name == name && a.configuration_values.is_some())
    };
    let changes = route.steps.iter().filter_map(|s| s.spec.addon_change());
    changes
        .filter(|change| configured(&change.name))
        .map(|change| (change.name.clone(), change.version.clone()))
        .collect()
}

/// Judges configurations by the schemas that were read.
pub fn check_addon_configurations(case: &ReadinessInput<'_>, out: &mut Vec<Finding>) {
    let Some(route) = case.route else { return };
    for (name, version) in configured_versions(route, case.inventory) {
        let addon = case.inventory.addons.iter().find(|a| a.name == name);
        let values = addon.and_then(|a| a.configuration_values.as_deref());
        let schemas = case.inventory.addon_schemas.get(&name);
        let schema = schemas.and_then(|s| s.get(&version));
        // A schema that could not be read is a finding of its own, and an empty one allows everything.
        let (Some(values), Some(schema)) = (values, schema) else {
            continue;
        };
        if values.trim().is_empty() || schema.is_empty() {
            continue;
        }
        if let Err(why) = addon_schema::check_configuration(values, schema) {
            out.push(Finding::new(
                Code::AddonConfiguration,
                format!("add-on {name}"),
                format!("its configuration does not match the schema of {version}, to which the route updates it: {why}"),
                format!(
                    "before the upgrade, change it so that both the present version and {version} accept it: aws eks \
                     update-addon --cluster-name {} --addon-name {name} --configuration-values ...; or pin another \
                     version under `addons.pins`",
                    case.plan.cluster
                ),
            ));
        }
    }
}
