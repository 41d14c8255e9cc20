#!/usr/bin/env python3
"""Writes what a released binary is built from as a CycloneDX 1.5 document, from `cargo metadata` and Cargo.lock.

    sbom.py TARGET...  >eksup.cdx.json

Crates that only tests need are left out. The same source gives the same bytes: neither time nor serial number is in it.
"""

import json
import subprocess
import sys
import tomllib


def cargo_metadata(target):
    command = ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def needed(metadata):
    """Returns the ids that the root needs to be built, each with the ids of what it needs itself."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    graph, open_ids = {}, [metadata["resolve"]["root"]]
    while open_ids:
        one = open_ids.pop()
        if one not in graph:
            deps = nodes[one]["deps"]
            graph[one] = sorted({d["pkg"] for d in deps if any(kind["kind"] != "dev" for kind in d["dep_kinds"])})
            open_ids += graph[one]
    return graph


def purl(package):
    return f"pkg:cargo/{package['name']}@{package['version']}"


def component(package, checksums):
    own = {"type": "library", "bom-ref": purl(package), "name": package["name"], "version": package["version"]}
    if checksum := checksums.get((package["name"], package["version"])):
        own["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Old crates write `MIT/Apache-2.0`.
        own["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    own["purl"] = purl(package)
    if package["repository"]:
        own["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return own


def bill(all_metadata, lock):
    """Returns the document for what any of the targets needs."""
    checksums = {(p["name"], p["version"]): p.get("checksum") for p in lock["package"]}
    packages, graph = {}, {}
    for metadata in all_metadata:
        by_id = {package["id"]: package for package in metadata["packages"]}
        for one, deps in needed(metadata).items():
            packages[purl(by_id[one])] = by_id[one]
            graph.setdefault(purl(by_id[one]), set()).update(purl(by_id[d]) for d in deps)
        root = purl(by_id[metadata["resolve"]["root"]])
    own = component(packages.pop(root), checksums) | {"type": "application"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": own},
        "components": [component(packages[name], checksums) for name in sorted(packages)],
        "dependencies": [{"ref": name, "dependsOn": sorted(graph[name])} for name in sorted(graph)],
    }


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    with open("Cargo.lock", "rb") as file:
        lock = tomllib.load(file)
    json.dump(bill([cargo_metadata(target) for target in sys.argv[1:]], lock), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
