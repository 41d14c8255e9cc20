#!/usr/bin/env python3
"""Carries out the commands of the workflow `release` that need no account: the version's agreement, packing, and publishing.

No compiler is run: EKSUP stands for what was built, for each target.
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest

import yaml

from action_test import EKSUP, ROOT, TRIPLE

PARTS = [".ci", "plans", "Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md"]


class ReleaseTest(unittest.TestCase):
    def setUp(self):
        own = tempfile.TemporaryDirectory()
        self.addCleanup(own.cleanup)
        self.folder = own.name
        for part in PARTS:
            source = os.path.join(ROOT, part)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, os.path.join(self.folder, part))
        for part in ("src", "tests", ".cargo"):
            os.symlink(os.path.join(ROOT, part), os.path.join(self.folder, part))
        with open(os.path.join(ROOT, ".github/workflows/release.yml"), encoding="utf-8") as file:
            self.jobs = yaml.safe_load(file)["jobs"]

    def carry(self, job, word, **environment):
        """Carries the one command of a job that has a word in it; returns exit code, output and outputs."""
        [step] = [step for step in self.jobs[job]["steps"] if word in step.get("run", "")]
        output = os.path.join(self.folder, "output")
        open(output, "w", encoding="utf-8").close()
        names = ("PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME")
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder,
            env={**{n: os.environ[n] for n in names if n in os.environ}, "GITHUB_OUTPUT": output, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        with open(output, encoding="utf-8") as file:
            outputs = dict(line.rstrip("\n").split("=", 1) for line in file)
        return done.returncode, done.stdout, outputs

    def test_tag_crate_and_changelog_must_agree(self):
        code, said, outputs = self.carry("version", "GITHUB_OUTPUT", TAG="")
        self.assertEqual((0, "v"), (code, outputs.get("version", "")[:1]), said)
        version = outputs["version"]
        # Not released yet, or released: the tag is taken once the changelog has it.
        path = os.path.join(self.folder, "CHANGELOG.md")
        with open(path, encoding="utf-8") as file:
            text = file.read()
        own = re.sub(rf"^## \[{version[1:]}\].*$", "", text, flags=re.M)
        for content, tag, expected in (
            (own, version, 1),
            (own.replace("## [Unreleased]\n", f"## [Unreleased]\n\n## [{version[1:]}] - 2026-12-01\n"), version, 0),
            (own, "v9.9.9", 1),
        ):
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            code, said, _ = self.carry("version", "GITHUB_OUTPUT", TAG=tag)
            self.assertEqual(expected, code, said)

    def test_what_is_packed_is_published_and_installs(self):
        version = self.carry("version", "GITHUB_OUTPUT", TAG="")[2]["version"]
        targets = [one["target"] for one in self.jobs["archive"]["strategy"]["matrix"]["include"]]
        self.assertIn(TRIPLE, targets)
        release = os.path.join(self.folder, "release")
        os.makedirs(release)
        for target in targets:
            built = os.path.join(self.folder, "target", target, "dist")
            os.makedirs(built)
            # For the other targets something small stands for it: packing takes time.
            shutil.copy2(EKSUP if target == TRIPLE else __file__, os.path.join(built, "eksup"))
            code, said, _ = self.carry("archive", "tar -czf", VERSION=version, TARGET=target)
            self.assertEqual(0, code, said)
            shutil.move(os.path.join(self.folder, f"archive/eksup-{version}-{target}.tar.gz"), release)
        with tarfile.open(os.path.join(release, f"eksup-{version}-{TRIPLE}.tar.gz")) as tar:
            names = {os.path.basename(name) for name in tar.getnames() if name.count("/") == 1}
        self.assertEqual({"eksup", "README.md", "LICENSE", "CHANGELOG.md", "SECURITY.md"}, names)
        code, said, _ = self.carry("publish", "SHA256SUMS", VERSION=version)
        self.assertEqual(0, code, said)
        self.assertIn(f"eksup-{version}.cdx.json", said)
        code, said, _ = self.carry("publish", "--release-only", VERSION=version)
        self.assertEqual(0, code, said)
        self.assertIn("SHA-256 verified", said)
        # One archive too few is no release.
        for name in (f"eksup-{version}-{targets[-1]}.tar.gz", "SHA256SUMS"):
            os.remove(os.path.join(release, name))
        self.assertEqual(1, self.carry("publish", "SHA256SUMS", VERSION=version)[0])


if __name__ == "__main__":
    unittest.main()
