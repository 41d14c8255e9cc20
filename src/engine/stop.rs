//! Asking a run to stop: the first time after the act in flight, the second time now.
