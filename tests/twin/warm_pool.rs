//! A group with a warm pool: the bundled cluster `self-managed`, with a pool beside the three instances of [`GROUP`], whose
//! largest size is six. Its user data starts the kubelet at once, so that instances register while they warm.

use eksup::model::snapshot::Snapshot;
use serde_json::{Value, json};

/// The group.
pub const GROUP: &str = "web-blue";

/// The snapshot with this warm pool, as DescribeAutoScalingGroups spells it.
pub fn with_pool(mut snapshot: Snapshot, pool: Value) -> Snapshot {
    let groups = "autoscaling:DescribeAutoScalingGroups";
    let groups = snapshot.aws.get_mut(groups).unwrap();
    let mut groups = groups.iter_mut();
    let group = groups.find(|g| g["AutoScalingGroupName"] == GROUP).unwrap();
    group["WarmPoolConfiguration"] = pool;
    snapshot
}

/// A pool of stopped instances, which takes them back when the group is made smaller.
pub fn stopped() -> Value {
    json!({"MinSize": 2, "PoolState": "Stopped", "InstanceReusePolicy": {"ReuseOnScaleIn": true}})
}

/// The snapshot with such a pool.
pub fn with_stopped_pool(snapshot: Snapshot) -> Snapshot {
    with_pool(snapshot, stopped())
}
