#!/bin/sh
# Puts eksup into a folder: the release archive of the version that this checkout is, its checksum verified, or where there
# is none, what is built here from source.
#
#   install.sh [--to DIR] [--version vX.Y.Z] [--releases URL] [--release-only | --build-only] [--build-key]
#
# --to DIR        where the binary goes; default: the folder `bin` of the home folder's `.local`
# --version V     the release; default: the tag on this checkout's commit. An archive of another version than the checkout's
#                 is taken as well, but never replaced by a build of the wrong one.
# --releases URL  the folder above the versions; default: EKSUP_RELEASES, else the releases of this checkout's `origin`
# --release-only  exit code 3 where there is no such release, and nothing is built
# --build-key     only print what a build depends on, as one word: to keep built binaries in a cache
#
# What was built is not built again while DIR is kept: the build's key lies beside it.
# A checksum that does not fit is an error, never a reason to build. Needs curl, tar, and sha256sum or shasum; to build, a
# Rust toolchain and a C compiler.
set -eu

say() { printf 'eksup: %s\n' "$*" >&2; }
fail() { say "error: $*"; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
folder="${HOME:-/root}/.local/bin" version='' releases=${EKSUP_RELEASES:-} mode=any key=no
while [ $# -gt 0 ]; do
  case $1 in
    --to) folder=$2; shift ;;
    --version) version=$2; shift ;;
    --releases) releases=$2; shift ;;
    --release-only) mode=release ;;
    --build-only) mode=build ;;
    --build-key) key=yes ;;
    *) say "error: no option $1"; exit 2 ;;
  esac
  shift
done

checksum() { if command -v sha256sum >/dev/null 2>&1; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }

# The name of what this machine runs, as Rust says it; empty where no archive is made for it.
target() {
  case "$(uname -s) $(uname -m)" in
    "Linux x86_64") libc x86_64-unknown-linux-gnu ;;
    "Linux aarch64" | "Linux arm64") libc aarch64-unknown-linux-gnu ;;
    "Darwin x86_64") echo x86_64-apple-darwin ;;
    "Darwin arm64") echo aarch64-apple-darwin ;;
  esac
}

# The archives for Linux need the GNU C library.
libc() { if ldd --version 2>&1 | grep -qi musl; then :; else echo "$1"; fi; }

# The version of the checkout's source.
source_version() { sed -n 's/^version = "\(.*\)"$/v\1/p' "$root/Cargo.toml" | head -1; }

build_key() {
  cd "$root"
  list=$(find Cargo.toml Cargo.lock rust-toolchain.toml .cargo src docs/findings.md -type f | LC_ALL=C sort)
  # No name in the list has a blank.
  # shellcheck disable=SC2086
  hash=$(checksum $list | checksum | cut -c1-32)
  echo "eksup-$(uname -s)-$(uname -m)-${ImageOS:-any}-$hash"
}
if [ $key = yes ]; then
  build_key
  exit 0
fi

if [ -z "$version" ]; then
  version=$(git -C "$root" describe --tags --exact-match --match 'v[0-9]*' 2>/dev/null || true)
fi
if [ -z "$releases" ]; then
  # https://SERVER/OWNER/NAME.git and git@SERVER:OWNER/NAME.git
  releases=$(git -C "$root" remote get-url origin 2>/dev/null |
    sed -n 's#^git@\([^:/]*\):#https://\1/#; s#^\(https\{0,1\}://\)[^/@]*@#\1#; s#\.git$##; s#^\(https\{0,1\}://.*\)$#\1/releases/download#p' || true)
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

place() {
  mkdir -p "$folder" || fail "$folder cannot be made"
  # Beside its place first: a binary that runs cannot be written over, but it can be replaced.
  { cp "$1" "$folder/.eksup.new" && chmod 755 "$folder/.eksup.new"; } || fail "$folder cannot be written to"
  "$folder/.eksup.new" --version >/dev/null || { rm -f "$folder/.eksup.new"; fail "$1 does not run on this machine"; }
  rm -f "$folder/.eksup.key"
  mv -f "$folder/.eksup.new" "$folder/eksup" || fail "$folder/eksup cannot be replaced"
  say "$folder/eksup is $("$folder/eksup" --version), $2"
}

# Exit code 3: there is no such release, or none can be reached.
install_release() {
  case $version in
    v[0-9]*.[0-9]*.[0-9]*) ;;
    *) say "this checkout is not a release"; return 3 ;;
  esac
  [ -n "$releases" ] || { say "no origin says where releases are"; return 3; }
  triple=$(target)
  [ -n "$triple" ] || { say "there are no archives for $(uname -s) $(uname -m) and its C library"; return 3; }
  archive="eksup-$version-$triple.tar.gz"
  for file in "$archive" SHA256SUMS; do
    curl -fsSL --retry 3 --connect-timeout 20 -o "$work/$file" "$releases/$version/$file" || {
      say "$releases/$version/$file cannot be had"
      return 3
    }
  done
  expected=$(sed -n "s/^\([0-9a-f]\{64\}\) [ *]$archive\$/\1/p" "$work/SHA256SUMS")
  [ -n "$expected" ] || fail "SHA256SUMS of $version does not name $archive"
  found=$(checksum "$work/$archive" | cut -c1-64)
  [ "$found" = "$expected" ] || fail "$archive has SHA-256 $found, and SHA256SUMS says $expected"
  tar -xzf "$work/$archive" -C "$work" || fail "$archive cannot be unpacked"
  [ -f "$work/eksup-$version-$triple/eksup" ] || fail "$archive has no eksup in it"
  place "$work/eksup-$version-$triple/eksup" "release $version, SHA-256 verified"
}

build() {
  if [ -n "$version" ] && [ "$version" != "$(source_version)" ]; then
    fail "there is no release $version, and this checkout is $(source_version): check out what you want to build"
  fi
  own=$(build_key) # In a shell of its own, which changes the folder.
  if [ "$(cat "$folder/.eksup.key" 2>/dev/null)" = "$own" ] && "$folder/eksup" --version >/dev/null 2>&1; then
    say "$folder/eksup is $("$folder/eksup" --version), built before from the same source"
    return
  fi
  command -v cargo >/dev/null 2>&1 || fail "to build eksup, a Rust toolchain is needed (https://rustup.rs)"
  say "building from source; this takes some minutes"
  # In the checkout, so that its rust-toolchain.toml counts.
  (cd "$root" && cargo build --locked --release --target-dir "${CARGO_TARGET_DIR:-$root/target}") >&2 ||
    fail "the build failed"
  place "${CARGO_TARGET_DIR:-$root/target}/release/eksup" "built from source"
  echo "$own" >"$folder/.eksup.key"
}

case $mode in
  release) install_release ;;
  build) build ;;
  any)
    code=0
    install_release || code=$?
    case $code in 0) ;; 3) build ;; *) exit "$code" ;; esac
    ;;
esac
