#!/usr/bin/env python3
"""Shows that each check of lint.py, links.py, recorded_run.py and the container can fail: a mistake is put in, and found."""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

import changelog
import lay_tree
import links
import lint
import recorded_run

PARTS = [".ci", ".github", "docs", "templates", "plans", "action.yml", "README.md", "SECURITY.md", "CHANGELOG.md", "LICENSE"]

# Each mistake: the check that must find it, the file, what is replaced, by what, and a word of the complaint.
MISTAKES = [
    ("actionlint", ".github/workflows/release.yml", "runs-on: ubuntu-latest", "runs-on: ubuntu-2", "label"),
    ("actionlint", ".github/workflows/release.yml", "needs.version.outputs.version", "needs.version.outputs.versoin", "versoin"),
    ("actionlint", "docs/examples/github/upgrade.yml", "timeout-minutes: 350", "timeout-minute: 350", "timeout-minute"),
    ("actionlint", "README.md", "runs-on: ubuntu-latest", "run-on: ubuntu-latest", "run-on"),
    ("zizmor", "docs/examples/github/upgrade.yml", "@de0fac2e4500dabe0009e67214ff5f5447ce83dd", "@v6", "unpinned"),
    ("zizmor", "action.yml", 'run: exec bash "$GITHUB_ACTION_PATH/.github/action/run.sh"', "run: eksup ${{ inputs.args }}", "template"),
    ("github_schemas", "action.yml", "using: composite", "using: composit", "action.yml"),
    ("github_schemas", ".github/dependabot.yml", "interval: weekly", "interval: wekly", "wekly"),
    ("github_schemas", ".github/ISSUE_TEMPLATE/run.yml", "type: textarea", "type: textfield", "textfield"),
    ("gitlab", "templates/eksup.yml", "resource_group:", "ressource_group:", "ressource_group"),
    ("gitlab", "templates/eksup.yml", "inputs.cluster ]]\n  interruptible", "inputs.klaster ]]\n  interruptible", "klaster"),
    ("gitlab", "templates/eksup.yml", '--to "$EKSUP_BIN"', "--to $EKSUP_BIN", "SC2086"),
    ("gitlab", "docs/examples/gitlab/.gitlab-ci.yml", "command: plan", "command: plann", "plann"),
    ("gitlab", "docs/examples/gitlab/.gitlab-ci.yml", "when: manual", "when: by-hand", "by-hand"),
    ("codebuild", "docs/examples/codebuild/buildspec.yml", "finally:", "finaly:", "finaly"),
    ("codebuild", "docs/examples/codebuild/buildspec.yml", "version: 0.2", "version: 0.3", "0.3"),
    ("codebuild", "docs/examples/codebuild/buildspec.yml", '--branch "$EKSUP_REF"', "--branch $EKSUP_REF", "SC2086"),
    ("jenkins", "docs/examples/jenkins/Jenkinsfile", "steps {", "steps (", "Unexpected"),
    ("jenkins", "docs/examples/jenkins/Jenkinsfile", "stages {", "stage {", "no place"),
    ("jenkins", "docs/examples/jenkins/Jenkinsfile", "always {", "ever {", "no place"),
    ("kubernetes", "docs/examples/kubernetes/job-irsa.yaml", "backoffLimit: 20", "backoffLimits: 20", "backoffLimits"),
    ("kubernetes", "docs/examples/kubernetes/job-pod-identity.yaml", "restartPolicy: Never", "restartPolicy: No", "restartPolicy"),
    ("kubernetes", "docs/examples/kubernetes/job-irsa.yaml", "    to: 1.29", "    upto: 1.29", "upto"),
    ("plan_schema", "docs/upgrade-plan.schema.json", '"latest"', '"newest"', "write it again"),
    ("plan_schema", "plans/minimal.yaml", "cluster:", "klaster:", "klaster"),
    ("container", ".ci/container/Containerfile", "WORKDIR /upgrade", "WORKDIR upgrade", "DL3000"),
    ("shell", ".github/action/run.sh", '$(dirname "$newest")', "$(dirname $newest)", "SC2086"),
    ("readme_job", "README.md", "role-duration-seconds: 21600", "role-duration-seconds: 3600", "another job"),
    ("changelog", "CHANGELOG.md", "### Added", "### New", "New"),
    ("placeholders", "docs/pipelines.md", "`OWNER/eksup@vX.Y.Z`", "uses: somebody/eksup@v1", "somebody"),
    ("sbom", ".ci/sbom.py", '"bomFormat": "CycloneDX"', '"bomFormat": "Cyclone"', "Cyclone"),
]

LINKS = [
    (links.check_pages, "README.md", "](docs/rollback.md)", "](docs/rolback.md)", "rolback.md is not there"),
    (links.check_pages, "README.md", "](docs/twin.md#chaos)", "](docs/twin.md#caos)", "no such heading"),
    (links.check_pages, "docs/faq.md", "# Questions", "# Questions\n\n[x](../SECURITY.md)", "leaves docs/"),
    (links.check_contents, "docs/SUMMARY.md", "- [Rollback](rollback.md)\n", "", "does not have rollback.md"),
    (links.check_contents, "docs/pipelines.md", "](examples/jenkins/Jenkinsfile)", "](examples/jenkins)", "does not name"),
]


class MistakeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.TemporaryDirectory()
        cls.root = os.path.join(cls.shared.name, "copy")
        os.makedirs(cls.root)
        for part in PARTS:
            source = os.path.join(lint.ROOT, part)
            (shutil.copytree if os.path.isdir(source) else shutil.copy2)(source, os.path.join(cls.root, part))
        # The bill of materials is of the real sources.
        for part in ("Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "src", "tests", ".cargo"):
            os.symlink(os.path.join(lint.ROOT, part), os.path.join(cls.root, part))

    @classmethod
    def tearDownClass(cls):
        cls.shared.cleanup()

    def change(self, name, old, new):
        """Puts a mistake into a file of the copy, until the test ends."""
        path = os.path.join(self.root, name)
        text = lint.read(path)
        self.assertIn(old, text, f"{name} has no {old}")

        def write(content):
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)

        write(text.replace(old, new, 1))
        return lambda: write(text)

    def test_each_mistake_is_found_by_its_tool(self):
        for check, name, old, new, word in MISTAKES:
            with self.subTest(check=check, name=name, new=new):
                restore = self.change(name, old, new)
                said = "\n".join(lint.CHECKS[check](self.root))
                restore()
                self.assertIn(word, said)
        self.assertEqual(set(lint.CHECKS), {mistake[0] for mistake in MISTAKES}, "each check has a mistake")

    def test_a_file_that_is_gone_is_a_mistake(self):
        path = os.path.join(self.root, "docs/examples/jenkins/Jenkinsfile")
        os.rename(path, path + ".gone")
        self.addCleanup(os.rename, path + ".gone", path)
        with self.assertRaises(LookupError):
            lint.CHECKS["jenkins"](self.root)

    def test_dead_links_and_missing_pages_are_found(self):
        for check, name, old, new, word in LINKS:
            with self.subTest(name=name, new=new):
                restore = self.change(name, old, new)
                said = "\n".join(check(self.root))
                restore()
                self.assertIn(word, said)

    def test_what_is_dead_in_the_book_alone_is_found(self):
        mdbook = os.path.join(lint.TOOLS, "mdbook")
        self.assertEqual([], links.check_book(self.root, mdbook))
        for name, old, new, word in (
            ("docs/overview.md", "](run.svg)", "](walk.svg)", "walk.svg"),
            ("docs/SUMMARY.md", "(rollback.md)", "(rollbak.md)", "rollbak"),
            ("docs/book.toml", "[output.html]", "[output.html", "mdbook"),
        ):
            with self.subTest(name=name, new=new):
                restore = self.change(name, old, new)
                said = "\n".join(links.check_book(self.root, mdbook))
                restore()
                self.assertIn(word, said)

    def test_a_picture_that_drifted_is_found(self):
        with tempfile.NamedTemporaryFile("w", suffix=".svg") as file:
            file.write(lint.read(recorded_run.PICTURE).replace("done in 9m", "done in 8m", 1).replace("1.28", "1.27", 1))
            file.flush()
            command = [sys.executable, recorded_run.__file__, "--eksup", lint.EKSUP, "--check", "--picture", file.name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual(1, done.returncode)
        self.assertIn("are not what the rehearsal says", done.stdout)

    def test_a_picture_of_lines_in_another_form_is_refused(self):
        with self.assertRaises(SystemExit):
            recorded_run.choose_lines(["Monday 08:15 control-plane-1.28 is done"] * 40)

    def test_a_tree_is_laid_of_the_right_machine_and_enough_certificates(self):
        here = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        other = "arm64" if here == "amd64" else "amd64"
        certificates = "/etc/ssl/certs/ca-certificates.crt"
        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaisesRegex(lay_tree.Refused, "is for ELF machine"):
                lay_tree.lay_tree(lint.EKSUP, other, certificates, folder)
            with open(os.path.join(folder, "few.crt"), "w", encoding="ascii") as file:
                file.write("-----BEGIN CERTIFICATE-----\n" * 3)
            with self.assertRaisesRegex(lay_tree.Refused, "only 3 certificates"):
                lay_tree.lay_tree(lint.EKSUP, here, file.name, folder)
            with self.assertRaisesRegex(lay_tree.Refused, "no 64-bit"):
                lay_tree.lay_tree(__file__, here, certificates, folder)

    def test_a_changelog_is_read_by_version(self):
        text = "# Changelog\n\n## [Unreleased]\n\n## [0.2.0] - 2027-01-02\n\n### Fixed\n\n- b\n\n## [0.1.0] - 2026-12-01\n\n### Added\n\n- a\n"
        self.assertEqual([], changelog.faults(text))
        self.assertIn(("0.1.0", "- 2026-12-01", "### Added\n\n- a"), changelog.sections(text))
        for old, new in (("0.2.0", "0.0.1"), ("0.2.0", "0.1.0"), ("2027-01-02", "soon"), ("## [Unreleased]\n", ""), ("### Fixed\n\n- b\n", "")):
            self.assertNotEqual([], changelog.faults(text.replace(old, new, 1)), old)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--eksup", default=lint.EKSUP)
    arguments, rest = parser.parse_known_args()
    lint.EKSUP = os.path.abspath(arguments.eksup)
    unittest.main(argv=[sys.argv[0], *rest])
