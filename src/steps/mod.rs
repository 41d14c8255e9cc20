//! What an upgrade is made of: one file a step.

pub mod world;

pub use world::World;
