//! What only a plan says that it must be read: images, template versions and instance types that it names, and the schemas
//! of the add-on versions on its route.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::account_limits::{add_quotas, add_type_sizes};
use super::read::{UnreadNotes, read_images, sorted_by};
use crate::aws::{AWS_CALL_CONCURRENCY, AwsApi};
use crate::model::group_owner::GroupOwner;
use crate::model::limits::Limits;
use crate::model::optimized_image::ImageLine;
use crate::model::{AddonVersion, ApiError, Inventory, Minor};
use crate::plan::{AUTO_IMAGE, DeleteOwned, Plan};

type Result<T> = std::result::Result<T, ApiError>;

/// Adds to a reading what the plan names.
///
/// # Errors
/// Any failure that may pass (throttled, transient, expired).
pub async fn read_for_plan(
    aws: &AwsApi,
    plan: &Plan,
    mut inventory: Inventory,
) -> Result<Inventory> {
    let notes = UnreadNotes::default();
    inventory.add_pool_groups(plan.replaced_pools());
    add_template_versions(aws, plan, &mut inventory, &notes).await?;
    add_optimized_images(aws, plan, &mut inventory, &notes).await?;
    add_stacks(aws, plan, &mut inventory, &notes).await?;
    // Images of the plan and of template versions that it names: the first reading could not know either.
    let given = plan
        .all_groups()
        .filter_map(|g| g.ami.clone())
        .filter(|id| id != AUTO_IMAGE);
    let of_templates = inventory.launch_templates.iter();
    let known = |id: &String| inventory.images.iter().any(|i| i.id == *id);
    let unknown: BTreeSet<String> = of_templates
        .filter_map(|t| t.image.clone())
        .chain(given)
        .chain(inventory.optimized_images.values().cloned())
        .filter(|id| !known(id))
        .collect();
    let more = read_images(aws, unknown, &notes).await?;
    inventory.images.extend(more);
    // The same of instance types: whether green's may launch depends on quotas and offerings of its own types.
    let types: BTreeSet<String> = plan
        .all_groups()
        .flat_map(|g| g.instance_types.iter().flatten().cloned())
        .chain(
            inventory
                .launch_templates
                .iter()
                .filter_map(|t| t.instance_type.clone()),
        )
        .collect();
    let mut limits = inventory.limits.take().unwrap_or_default();
    let unknown = |t: &String| !limits.offerings.contains_key(t);
    let types: Vec<String> = types.into_iter().filter(unknown).collect();
    if !types.is_empty() {
        add_instance_types(aws, &types, &mut limits, &mut inventory, &notes).await?;
    }
    inventory.limits = Some(limits);
    Ok(merge_unread(inventory, notes))
}

/// Adds the schemas of add-on versions that a route goes through.
///
/// # Errors
/// Any failure that may pass (throttled, transient, expired).
pub async fn read_addon_schemas(
    aws: &AwsApi,
    versions: &BTreeSet<(String, AddonVersion)>,
    mut inventory: Inventory,
) -> Result<Inventory> {
    let notes = UnreadNotes::default();
    // A schema that is denied is noted as unread; only what may pass ends the reading.
    let each = versions.iter().map(async |(name, version)| {
        let schema = notes
            .or_none(aws.describe_addon_schema(name, version))
            .await?;
        Ok::<_, ApiError>(schema.map(|s| (name.clone(), version.clone(), s.unwrap_or_default())))
    });
    let found: Vec<Option<(String, AddonVersion, String)>> = stream::iter(each)
        .buffered(AWS_CALL_CONCURRENCY)
        .try_collect()
        .await?;
    let mut schemas: BTreeMap<String, BTreeMap<AddonVersion, String>> = BTreeMap::new();
    for (name, version, schema) in found.into_iter().flatten() {
        // An add-on without a schema has an empty one, which tells it from one that was not read.
        schemas.entry(name).or_default().insert(version, schema);
    }
    inventory.addon_schemas = schemas;
    Ok(merge_unread(inventory, notes))
}

fn merge_unread(mut inventory: Inventory, notes: UnreadNotes) -> Inventory {
    inventory.unread.extend(notes.into_unread());
    let mut unread = sorted_by(inventory.unread, |n| (n.op.clone(), n.why.clone()));
    unread.dedup();
    Inventory {
        unread,
        ..inventory
    }
}

/// The stacks that the plan deletes.
async fn add_stacks(
    aws: &AwsApi,
    plan: &Plan,
    inventory: &mut Inventory,
    notes: &UnreadNotes,
) -> Result<()> {
    let with_stack = { plan.all_groups() }.filter(|g| g.delete_owned == DeleteOwned::Stack);
    for plan_entry in with_stack {
        let group = inventory.find_nodegroup(&plan_entry.blue);
        let owner = group.and_then(|g| GroupOwner::from_tags(&g.tags));
        let Some(stack) = owner.as_ref().and_then(GroupOwner::stack_id) else {
            continue;
        };
        let found = notes.or_none(aws.read_stack(stack)).await?.flatten();
        let found = found.map(|found| (plan_entry.blue.clone(), found));
        inventory.stacks.extend(found);
    }
    Ok(())
}

/// The versions of blue's templates that the plan gives green.
async fn add_template_versions(
    aws: &AwsApi,
    plan: &Plan,
    inventory: &mut Inventory,
    notes: &UnreadNotes,
) -> Result<()> {
    for plan_entry in plan.all_groups() {
        let template = inventory
            .find_nodegroup(&plan_entry.blue)
            .and_then(|g| g.launch_template.as_ref())
            .filter(|t| t.configuration().is_none());
        let id = template.and_then(|t| t.id.clone());
        let (Some(id), Some(number)) = (id, plan_entry.launch_template_version) else {
            continue;
        };
        let known =
            |t: &crate::model::ec2::LaunchTemplateVersion| t.id == id && t.version == number;
        // The reading without a plan has only the version that blue uses.
        if !inventory.launch_templates.iter().any(known) {
            let number = number.to_string();
            let found = aws.describe_launch_template_version(&id, &number);
            inventory
                .launch_templates
                .extend(notes.or_none(found).await?);
        }
    }
    Ok(())
}

/// The newest images of AWS for the self-managed groups that ask for them, of every minor where they may stop over.
async fn add_optimized_images(
    aws: &AwsApi,
    plan: &Plan,
    inventory: &mut Inventory,
    notes: &UnreadNotes,
) -> Result<()> {
    let asking = plan
        .all_groups()
        .filter(|g| g.ami.as_deref() == Some(AUTO_IMAGE));
    let lines: BTreeSet<ImageLine> = asking
        .filter_map(|entry| inventory.image_line_of(&entry.blue))
        .collect();
    let first = inventory.cluster.version;
    let minors = std::iter::successors(Some(first), |m| Some(m.next()));
    let minors: Vec<Minor> = minors.take_while(|m| *m <= plan.to).collect();
    let of_line = |line: &ImageLine| -> Vec<String> {
        let each = minors.iter().filter_map(|m| line.parameter_for(*m));
        each.collect()
    };
    for parameter in lines.iter().flat_map(of_line) {
        let found = notes.or_none(aws.read_parameter(&parameter)).await?;
        if let Some(image) = found.flatten() {
            inventory.optimized_images.insert(parameter, image);
        }
    }
    Ok(())
}

async fn add_instance_types(
    aws: &AwsApi,
    types: &[String],
    limits: &mut Limits,
    inventory: &mut Inventory,
    notes: &UnreadNotes,
) -> Result<()> {
    limits
        .offerings
        .extend(notes.or_default(aws.read_type_offerings(types)).await?);
    inventory
        .interface_limits
        .extend(notes.or_default(aws.read_interface_limits(types)).await?);
    add_type_sizes(aws, types, notes, limits).await?;
    add_quotas(aws, types, notes, limits).await
}
