//! Who carries a run.

/// Who carries a run: machine, process and a little chance, so that a restarted container is another one.
pub fn make_holder_identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|h| h.trim().to_owned())
        .or_else(|| std::env::var("HOSTNAME").ok())
        .unwrap_or_else(|| "somewhere".to_owned());
    let chance: String = (0..6)
        .map(|_| fastrand::alphanumeric().to_ascii_lowercase())
        .collect();
    format!("{host}-{}-{chance}", std::process::id())
}
