#!/usr/bin/env python3
"""Shows that handback_check.py can fail: each mistake that is put into what eksup prints is reported, and what is right is not."""

import glob
import os
import unittest

import handback_check

SNAPSHOTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "src/handback/snapshots")


def document(tool):
    [path] = glob.glob(f"{SNAPSHOTS}/*__{tool}.snap")
    with open(path, encoding="utf-8") as file:
        return file.read().split("\n---\n", 1)[1]


def problems(text, schema=None):
    return "\n".join(handback_check.check_document(text, schema, set()))


class Handback(unittest.TestCase):
    def change(self, tool, old, new):
        text = document(tool)
        self.assertIn(old, text)
        return problems(text.replace(old, new))

    def test_what_is_printed_is_right(self):
        for tool in ("terraform", "terraform_module", "eksctl", "cloudformation", "cdk", "pulumi", "node_pools"):
            self.assertEqual("", problems(document(tool)), tool)

    def test_terraform(self):
        for old, new, said in [
            ('"say \\"hi\\"', '"say "hi"', "it is no HCL"),
            ("  destroy = false", "  destroy = true", "would destroy"),
            ("from = aws_autoscaling_group.", "from = aws_autoscaling_group.x[0].", "takes no address with a key"),
            ("node_role_arn", "node_role", "has no argument node_role"),
            ('resource "aws_eks_node_group" "apps_green"', 'resource "aws_eks_node_group" "other"', "nothing describes"),
            ('"spot_green_1" {', '"apps_green" {', "twice: aws_eks_node_group.apps_green"),
            ("import {", "imports {", "nothing is imported"),
        ]:
            self.assertIn(said, self.change("terraform", old, new), new)
        self.assertIn("the module has no input role", self.change("terraform_module", "iam_role_name ", "role "))

    def test_eksctl(self):
        self.assertIn("a managed group has no image", self.change("eksctl", "amiFamily:", "image:"))
        self.assertIn("volumeSize beside", self.change("eksctl", "    launchTemplate:\n", "    volumeSize: 8\n    launchTemplate:\n"))
        self.assertIn("it is no ClusterConfig", self.change("eksctl", "v1alpha5", "v1alpha4"))
        self.assertIn("cannot be read", self.change("eksctl", 'kind: "', "kind: '"))
        schema = {"type": "object", "properties": {"kind": {"enum": ["Other"]}}}
        self.assertIn("eksctl's schema: $.kind", problems(document("eksctl"), schema))

    def test_node_pools(self):
        self.assertIn("has the annotation eksup.dev/", self.change("node_pools", '    team:', '    "eksup.dev/run":'))
        self.assertIn("it has [", self.change("node_pools", 'kind: "NodePool"', 'kind: "Pool"'))
        self.assertIn("cannot be read", self.change("node_pools", 'kind: "NodePool"', "kind: 'NodePool\""))

    def test_cloudformation(self):
        for old, new, said in [
            ('"Id": "shop/', '"Name": "shop/', "is identified by ['Id']"),
            ('"DeletionPolicy": "Retain"', '"DeletionPolicy": "Delete"', "may be deleted"),
            ('"LogicalResourceId": "Nodegroup', '"LogicalResourceId": "Other', "is not in the template's part"),
            ('"MaxSize": 6', '"MaxSize": "many"', "cfn-lint"),
            ("aws cloudformation execute-change-set", "aws cloudformation run-change-set", "has no operation run-change-set"),
            ("--change-set-type", "--type", "has no option --type"),
        ]:
            self.assertIn(said, self.change("cloudformation", old, new), new)
        self.assertIn("no property nodeKind", self.change("cdk", '"nodeRole"', '"nodeKind"'))

    def test_pulumi(self):
        self.assertIn("has no input nodeRole", self.change("pulumi", "nodeRoleArn", "nodeRole"))


if __name__ == "__main__":
    unittest.main()
