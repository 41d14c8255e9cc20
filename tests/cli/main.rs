//! The program from outside, a process a test: its exit codes, what it writes where, its screens, and that it writes no
//! secret. No test links the library.

mod bundled_clusters;
mod cases;
mod commands;
mod live;
mod program;
mod screens;
mod secrets;
mod served_twin;
