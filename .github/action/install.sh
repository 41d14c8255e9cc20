#!/usr/bin/env bash
# First step of action.yml: the release of the action's own tag, or of the input `version`; else says that it must be built,
# where to, and under which key a cache may have it. Outputs: folder, and where it must be built: build, key.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
folder="$RUNNER_TEMP/eksup-bin"

# Runners have left these two empty in composite actions; the path of the action's checkout says the same:
# .../_actions/OWNER/NAME/REF
if [[ -z "$REPOSITORY" && "$root" =~ /_actions/([^/]+/[^/]+)/([^/]+)$ ]]; then
  REPOSITORY=${BASH_REMATCH[1]} REF=${BASH_REMATCH[2]}
fi
version=$VERSION
if [[ -z "$version" && "$REF" =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$ ]]; then
  version=$REF
fi

echo "folder=$folder" >>"$GITHUB_OUTPUT"
code=0
if [[ -n "$version" && -n "$REPOSITORY" ]]; then
  sh "$root/.ci/install.sh" --release-only --to "$folder" --version "$version" --releases "$SERVER/$REPOSITORY/releases/download" || code=$?
else
  code=3
fi
case $code in
  0) ;;
  3)
    own="v$(sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -1)"
    if [[ -n "$VERSION" && "$VERSION" != "$own" ]]; then
      echo "::error title=eksup::there is no release $VERSION for this runner, and the action's own checkout is $own"
      exit 1
    fi
    echo "build=true" >>"$GITHUB_OUTPUT"
    echo "key=$(sh "$root/.ci/install.sh" --build-key)" >>"$GITHUB_OUTPUT"
    ;;
  *)
    echo "::error title=eksup::the release $version was not installed; see the lines above"
    exit "$code"
    ;;
esac
