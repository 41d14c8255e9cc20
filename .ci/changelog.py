#!/usr/bin/env python3
"""Reads CHANGELOG.md, which is of the form "Keep a Changelog".

    changelog.py           checks the form
    changelog.py v1.2.3    prints what that version changed; it must be there
"""

import re
import sys

KINDS = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")


def sections(text):
    """Returns the versions in order, each with its text."""
    parts = re.split(r"^## \[([^\]]+)\](.*)$", text, flags=re.M)
    return [(parts[i], parts[i + 1].strip(), parts[i + 2].strip()) for i in range(1, len(parts), 3)]


def faults(text):
    """Returns what is wrong with the form."""
    wrong, all_sections = [], sections(text)
    if not text.startswith("# Changelog\n"):
        wrong.append("the title is not `# Changelog`")
    if [name for name, _, _ in all_sections][:1] != ["Unreleased"]:
        wrong.append("the first version is not [Unreleased]")
    numbers = []
    for name, rest, body in all_sections:
        if name == "Unreleased":
            continue
        if not re.fullmatch(r"\d+\.\d+\.\d+", name) or not re.fullmatch(r"- \d{4}-\d\d-\d\d", rest):
            wrong.append(f"`[{name}] {rest}` is not `[X.Y.Z] - YYYY-MM-DD`")
        else:
            numbers.append(tuple(map(int, name.split("."))))
        if not body:
            wrong.append(f"{name} is empty")
    if numbers != sorted(numbers, reverse=True) or len(set(numbers)) != len(numbers):
        wrong.append("the newest version is not first, or one is there twice")
    wrong += [f"`### {kind}` is none of {', '.join(KINDS)}" for kind in re.findall(r"^### (.+)$", text, re.M) if kind not in KINDS]
    wrong += [f"`{line}` is no heading that is known" for line in re.findall(r"^## (?!\[).*$", text, re.M)]
    return wrong


def main():
    with open("CHANGELOG.md", encoding="utf-8") as file:
        text = file.read()
    wrong = faults(text)
    for line in wrong:
        print(f"error: CHANGELOG.md: {line}", file=sys.stderr)
    if len(sys.argv) > 1:
        bodies = [body for name, _, body in sections(text) if f"v{name}" == sys.argv[1]]
        if not bodies:
            sys.exit(f"error: CHANGELOG.md has no {sys.argv[1]}")
        print(bodies[0])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
