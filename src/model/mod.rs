//! Plain data: what the program knows of a cluster, versions and their arithmetic, the clock.
//!
//! AWS objects are spelled in JSON as AWS spells them (EKS in camelCase, the others in PascalCase) and Kubernetes
//! objects are cut down to what a decision needs. Nothing here does I/O.

pub mod addon_schema;
pub mod admission;
pub mod asg;
pub mod aws_status;
pub mod clock;
pub mod cni;
pub mod consent;
pub mod ec2;
pub mod eks;
pub mod elb;
pub mod error;
pub mod group_owner;
pub mod image;
pub mod inventory;
pub mod kube;
pub mod lease_record;
pub mod limits;
pub mod maintenance_window;
pub mod marks;
pub mod node_access;
pub mod node_pool;
pub mod node_registration;
pub mod node_source;
pub mod operator_budgets;
pub mod optimized_image;
pub mod pod_admission;
pub mod pod_identity;
pub mod pool_group;
pub mod restarts;
pub mod scheduling;
pub mod snapshot;
pub mod stack;
pub mod stack_template;
pub mod template_yaml;
pub mod user_data;
pub mod version;
pub mod volumes;
pub mod warm_pool;
pub mod workload_name;

pub use clock::Clock;
pub use error::{ApiError, ErrorClass, absent_is_none};
pub use inventory::Inventory;
pub use maintenance_window::Windows;
pub use version::{AddonVersion, Minor};

pub use jiff::Timestamp;
