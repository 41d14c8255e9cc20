#!/usr/bin/env python3
"""Holds the documents together: no dead link or anchor, every page in the book, every example named, and the book is built.

    links.py [--root DIR] [--mdbook FILE]

Links to other sites are not followed. The book is checked as it was built: each link and picture of each page is there.
"""

import argparse
import glob
import html.parser
import os
import re
import subprocess
import sys
import tempfile
import urllib.parse

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
PAGES = ["*.md", "docs/*.md", ".github/*.md", ".github/*/*.md"]


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def without_code(text):
    """A page without what stands in code: links there are text."""
    text = re.sub(r"^( *)(```+|~~~+).*?^\1\2[^\n]*$", "", text, flags=re.S | re.M)
    return re.sub(r"(`+)[^\n]*?\1", "", text)


def anchors(text):
    """The anchors that GitHub gives a page's headings."""
    found, seen = set(), {}
    for heading in re.findall(r"^#{1,6} +(.*?)\s*#*$", re.sub(r"^( *)```.*?^\1```", "", text, flags=re.S | re.M), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower().replace("`", "")).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        found.add(f"{slug}-{count}" if count else slug)
    return found | set(re.findall(r'<a (?:id|name)="([^"]+)"', text))


def targets(text):
    """What a page links to or shows."""
    body = without_code(text)
    inline = re.findall(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(\s*<?([^)\s>]+)>?[^)]*\)", body)
    return inline + re.findall(r"^\[[^\]]+\]:\s*(\S+)", body, re.M)


def check_pages(root):
    """Dead links and anchors of the pages as GitHub shows them."""
    wrong, count = [], 0
    for path in sorted({p for pattern in PAGES for p in glob.glob(os.path.join(root, pattern), include_hidden=True)}):
        name = os.path.relpath(path, root)
        for target in targets(read(path)):
            if re.match(r"[a-z]+:", target):
                continue
            count += 1
            file, _, anchor = target.partition("#")
            there = os.path.normpath(os.path.join(os.path.dirname(path), urllib.parse.unquote(file))) if file else path
            if not os.path.exists(there):
                wrong.append(f"{name}: {target} is not there")
            elif anchor and there.endswith(".md") and anchor not in anchors(read(there)):
                wrong.append(f"{name}: {target} has no such heading")
            # A link out of the folder would be dead in the book.
            elif name.startswith("docs/") and not there.startswith(os.path.join(root, "docs") + os.sep):
                wrong.append(f"{name}: {target} leaves docs/, and the book with it")
    if count < 20:
        wrong.append(f"only {count} links were found")
    return wrong


def check_contents(root):
    """Every page is in the book's contents, every example in the page on pipelines."""
    summary = targets(read(os.path.join(root, "docs/SUMMARY.md")))
    pages = {os.path.basename(p) for p in glob.glob(os.path.join(root, "docs/*.md"))} - {"SUMMARY.md"}
    wrong = [f"docs/SUMMARY.md does not have {page}" for page in sorted(pages - set(summary))]
    named = targets(read(os.path.join(root, "docs/pipelines.md")))
    for folder, _, files in os.walk(os.path.join(root, "docs/examples")):
        for file in files:
            example = os.path.relpath(os.path.join(folder, file), os.path.join(root, "docs"))
            if example not in named:
                wrong.append(f"docs/pipelines.md does not name {example}")
    return wrong


class Links(html.parser.HTMLParser):
    """The links, pictures and ids of a page of the book."""

    def __init__(self):
        super().__init__()
        self.links, self.ids = [], set()

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("href", "src") and tag in ("a", "img", "link", "script") and value:
                self.links.append(value)
            if name in ("id", "name") and value:
                self.ids.add(value)


def check_book(root, mdbook):
    """The book is built without a warning, and nothing that its pages name is missing in it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [mdbook, "build", os.path.join(root, "docs"), "--dest-dir", folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode != 0 or re.search(r"\b(WARN|ERROR)\b", said):
            return [f"mdbook: {said.strip()[-1000:]}"]
        pages = {}
        for path in glob.glob(os.path.join(folder, "**/*.html"), recursive=True):
            pages[path] = Links()
            pages[path].feed(read(path))
        wrong = []
        for path, page in pages.items():
            if os.path.basename(path) in ("print.html", "toc.html", "404.html"):
                continue
            for link in page.links:
                if re.match(r"[a-z]+:|//", link):
                    continue
                file, _, anchor = link.partition("#")
                there = os.path.normpath(os.path.join(os.path.dirname(path), urllib.parse.unquote(file))) if file else path
                if not os.path.exists(there):
                    wrong.append(f"the book: {os.path.basename(path)} names {link}, which is not there")
                elif anchor and there in pages and anchor not in pages[there].ids:
                    wrong.append(f"the book: {os.path.basename(path)} names {link}, and there is no such heading")
        if len(pages) < 10:
            wrong.append(f"the book has only {len(pages)} pages")
        return wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=ROOT)
    parser.add_argument("--mdbook", default=os.path.join(os.path.dirname(sys.executable), "mdbook"))
    arguments = parser.parse_args()
    root = os.path.abspath(arguments.root)
    wrong = check_pages(root) + check_contents(root) + check_book(root, arguments.mdbook)
    for line in wrong:
        print(f"WRONG {line}")
    print(f"documents: {len(wrong)} dead links or missing pages")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
