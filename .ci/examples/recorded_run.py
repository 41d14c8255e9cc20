#!/usr/bin/env python3
"""Draws docs/run.svg, the picture of a run in README.md, from a rehearsal of plans/expense-dev.yaml with seed 1.

    recorded_run.py --eksup FILE --check    fails where the picture is not what the rehearsal says
    recorded_run.py --eksup FILE --write    draws it

It shows lines as they are printed: the ends of steps and the acts that change something, each cut to the picture's width.
"""

import argparse
import html
import os
import re
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PICTURE = os.path.join(ROOT, "docs/run.svg")
COMMAND = "eksup rehearse plans/expense-dev.yaml"
WIDTH = 112

# What is shown: run's begin and end, ends of steps, and these acts.
SHOWN = re.compile(
    r"^\d\d:\d\d:\d\d ((?:run|rehearsal) |\[\d+/\d+\] \S+ done in|\S+ (UpdateClusterVersion|CreateNodegroup|DeleteNodegroup|\d+% on green|begin with|evict ))"
)
TIME = re.compile(r"^(\d\d:\d\d:\d\d) (.*)$")


def record_run(eksup):
    """Returns the lines that a rehearsal prints, without colours and bars."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    command = [eksup, *COMMAND.split()[1:], "--no-progress"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"error: the rehearsal ended with {done.returncode}: {done.stderr[-500:]}")
    return done.stderr.splitlines()


def choose_lines(lines):
    """Returns the lines that the picture shows, each cut to its width."""
    shown = []
    for line in lines:
        # `12:00:00 step: text` and `12:00:00 [1/19] step: text`: the colon after the step is left out for matching only.
        if SHOWN.match(re.sub(r"^(\d\d:\d\d:\d\d (?:\[\d+/\d+\] )?[\w.-]+):", r"\1", line)):
            shown.append(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…")
    if len(shown) < 25:
        sys.exit(f"error: only {len(shown)} lines of the rehearsal are of the forms that SHOWN knows: adapt it to what is printed")
    return shown


def draw_picture(lines):
    """Returns the lines as a picture that follows the reader's light or dark mode."""
    step, left, top = 18, 16, 46
    height = top + step * (len(lines) + 1) + 6
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="900" viewBox="0 0 900 {height}" role="img" aria-labelledby="t">',
        f"<title id=\"t\">{html.escape(COMMAND)}: {html.escape(lines[-1][9:])}</title>",
        "<style>",
        "text{font:12.6px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1f2328;white-space:pre}",
        ".b{fill:#f6f8fa;stroke:#d1d9e0}.t{fill:#59636e}.d{fill:#1a7f37}.p{fill:#0969da;font-weight:600}",
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.b{fill:#0d1117;stroke:#3d444d}.t{fill:#9198a1}.d{fill:#3fb950}.p{fill:#4493f8}}",
        "</style>",
        f'<rect class="b" x=".5" y=".5" width="899" height="{height - 1}" rx="8"/>',
        f'<text class="p" x="{left}" y="26">$ {html.escape(COMMAND)}</text>',
    ]
    for i, line in enumerate(lines):
        time, rest = TIME.match(line).groups()
        kind = ' class="d"' if " done in " in rest or ": done, " in rest else ""
        y = top + step * (i + 1) - 8
        out.append(f'<text class="t" x="{left}" y="{y}">{time}</text><text{kind} x="{left + 70}" y="{y}">{html.escape(rest)}</text>')
    return "\n".join([*out, "</svg>", ""])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--eksup", default=os.path.join(ROOT, "target/debug/eksup"))
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true")
    what.add_argument("--write", action="store_true")
    parser.add_argument("--picture", default=PICTURE)
    arguments = parser.parse_args()
    drawn = draw_picture(choose_lines(record_run(os.path.abspath(arguments.eksup))))
    if arguments.write:
        with open(arguments.picture, "w", encoding="utf-8") as file:
            file.write(drawn)
        return
    with open(arguments.picture, encoding="utf-8") as file:
        kept = file.read()
    if kept != drawn:
        old = set(kept.splitlines())
        new = [line for line in drawn.splitlines() if line not in old]
        print(f"{len(new)} of {len(drawn.splitlines())} lines of docs/run.svg are not what the rehearsal says, such as:")
        print("\n".join(re.sub(r"<[^>]+>", "", line) for line in new[:5]))
        sys.exit("error: draw it again: python3 .ci/examples/recorded_run.py --write")
    print(f"docs/run.svg: {len(drawn.splitlines()) - 10} lines are what the rehearsal says")


if __name__ == "__main__":
    main()
