#!/usr/bin/env python3
"""Names public items that nothing but their own unit tests uses.

The crate is a library for its own binary and test programs, so the compiler takes every public item for used. This reads
the sources instead: an item whose name stands nowhere else in product code, nor in the test programs, is reported."""

import collections
import re
import sys
from pathlib import Path

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ITEM = re.compile(
    r"((?:#\[[^\]]*\]\s*)*)pub(?:\([a-z: ]+\))? (?:const |async |unsafe )*"
    r"(fn|struct|enum|trait|type|const|static) ([A-Za-z_][A-Za-z0-9_]*)"
)
TEST_MODULE = re.compile(r"#\[cfg\((?:any\()?test[^\]]*\]\s*(?:#\[[^\]]*\]\s*)*(?:pub(?:\([a-z: ]+\))? )?mod (\w+);")


def test_only_files(sources):
    """Files of modules that are compiled for tests only, and of all below them."""
    prefixes = []
    for path, text in sources.items():
        folder = path.parent if path.name in ("mod.rs", "lib.rs", "main.rs") else path.with_suffix("")
        prefixes += [folder / name for name in TEST_MODULE.findall(text)]
    return {
        path
        for path in sources
        for prefix in prefixes
        if path == prefix.with_suffix(".rs") or prefix in path.parents
    }


def without_tests(text):
    """The text without comments and without its module of unit tests, which is the last thing of a file."""
    text = re.sub(r"(?m)^\s*//.*$", "", text)
    match = re.search(r"#\[cfg\(test\)\]\s*(?:pub(?:\([a-z: ]+\))? )?mod \w+ \{", text)
    return text[: match.start()] if match else text


def unused_items(root):
    """File, kind and name of each item that is not used."""
    sources = {p.relative_to(root): p.read_text() for p in sorted((root / "src").rglob("*.rs"))}
    tests = test_only_files(sources)
    product = {path: without_tests(text) for path, text in sources.items() if path not in tests}
    words = collections.Counter()
    for text in product.values():
        words.update(WORD.findall(text))
    programs = collections.Counter()
    for path in sorted((root / "tests").rglob("*.rs")):
        programs.update(WORD.findall(path.read_text()))
    for path, text in product.items():
        for attributes, kind, name in ITEM.findall(text):
            if "cfg(test)" not in attributes and words[name] <= 1 and not programs[name]:
                yield path, kind, name


def main():
    found = list(unused_items(Path(sys.argv[1] if len(sys.argv) > 1 else ".")))
    for path, kind, name in found:
        print(f"{path}: {kind} {name} is used by nothing but its tests")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
