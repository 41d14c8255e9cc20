//! Keeps the release binary small, where the linker is known to be able to: the toolchain's own on x86-64 Linux.
//!
//! Three things are left out. Functions that came out the same, of which generated clients have thousands, are kept once.
//! As a panic ends the process, nothing ever unwinds: the tables for it, a seventh of the binary, serve nobody; the
//! message of a panic and its place are printed as ever. And the places that hold an address are listed in short, a tenth
//! of the binary, where the C library here can read that; an older one then says `GLIBC_ABI_DT_RELR` not found.

use std::env::var;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=.cargo/build.rs");
    for name in ["RUSTC_LINKER", "CARGO_ENCODED_RUSTFLAGS"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let is = |name, value| var(name).is_ok_and(|v| v == value);
    // Whoever brings a linker or flags of their own has chosen.
    let chosen = ["RUSTC_LINKER", "CARGO_ENCODED_RUSTFLAGS"]
        .iter()
        .any(|name| var(name).is_ok_and(|v| !v.is_empty()));
    let suits = is("PROFILE", "release") && is("TARGET", "x86_64-unknown-linux-gnu");
    if chosen || !suits || !brings_linker() {
        return;
    }
    let folder = PathBuf::from(var("OUT_DIR").expect("cargo says where a build script may write"));
    let script = folder.join("no-unwinding.ld");
    std::fs::write(
        &script,
        "SECTIONS { /DISCARD/ : { *(.eh_frame) *(.eh_frame_hdr) } } INSERT AFTER .text;\n",
    )
    .expect("the build's own folder can be written to");
    let script = format!("-T,{}", script.display());
    let mut arguments = vec!["--icf=all", "--no-eh-frame-hdr", &script];
    if reads_short_relocations() {
        arguments.push("-z,pack-relative-relocs");
    }
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
    }
}

/// Whether the C library is GNU's of 2.36 or later, the first that reads relative relocations in their short form.
fn reads_short_relocations() -> bool {
    let asked = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let said = asked.ok().and_then(|o| String::from_utf8(o.stdout).ok());
    let version = said.and_then(|s| {
        let (major, minor) = s.trim().strip_prefix("glibc ")?.split_once('.')?;
        Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?))
    });
    version.is_some_and(|v| v >= (2, 36))
}

/// Whether the toolchain has a linker of its own, and so links with it; a distribution's may not.
fn brings_linker() -> bool {
    let Ok(rustc) = var("RUSTC") else {
        return false;
    };
    let asked = Command::new(rustc).args(["--print", "sysroot"]).output();
    let root = asked.ok().and_then(|o| String::from_utf8(o.stdout).ok());
    let linker = "lib/rustlib/x86_64-unknown-linux-gnu/bin/gcc-ld/ld.lld";
    root.is_some_and(|root| PathBuf::from(root.trim()).join(linker).exists())
}
