#!/usr/bin/env python3
"""Validates recorded AWS traffic against the service models that botocore ships.

    botocore_check.py RECORD.jsonl [--least-operations N] [--least-exchanges N]

Each line of the record is one exchange: {"from", "method", "uri", "headers", "body", "status", "reply_headers", "reply"}.
Every request must be one that the model allows (operation, members, types, required members, enums, patterns, lengths,
ranges), and every reply one that botocore's own parser reads and that holds nothing the output shape lacks. An error must
have a code that the operation's model, or AWS as a whole, knows. Exits with 1 when anything is wrong or too little was seen.
"""

import argparse
import base64
import collections
import glob
import json
import re
import sys
import urllib.parse
import xml.etree.ElementTree as ET

import botocore.loaders
import botocore.model
import botocore.parsers
import botocore.session
from botocore.awsrequest import HeadersDict

from aws_names import COMMON_EC2, COMMON_JSON, COMMON_JSON_1_1, COMMON_QUERY, SERVICES


class Wrong(Exception):
    """The exchange cannot be read any further."""


def load(service):
    loader = botocore.session.get_session().get_component("data_loader")
    return botocore.model.ServiceModel(loader.load_service_model(service, "service-2"), service)


def protocol_of(model):
    # Some models name several; the first that the SDKs and the twin both speak.
    for name in model.metadata.get("protocols") or [model.metadata["protocol"]]:
        if name in ("rest-json", "json", "query", "ec2"):
            return name
    raise Wrong(f"{model.service_name} speaks {model.metadata['protocol']}, which is not checked")


PATTERNS = {}


def compiled(pattern):
    """A pattern of a model as Python has it; None where it cannot be had."""
    if pattern not in PATTERNS:
        text = pattern
        # Java's surrogate pairs are one character here, and its classes are spelled out.
        text = text.replace("\\uD800\\uDC00-\\uDBFF\\uDFFF", "\\U00010000-\\U0010FFFF")
        text = text.replace("\ud800\udc00-\udbff\udfff", "\U00010000-\U0010ffff")
        for name, chars in (("Alpha", "A-Za-z"), ("Alnum", "A-Za-z0-9"), ("Digit", "0-9"), ("L", "^\\W\\d_")):
            text = text.replace("[\\p{%s}]" % name, "[%s]" % chars).replace("\\p{%s}" % name, chars)
        text = re.sub(r"^\(\?s\)", "", text)
        try:
            PATTERNS[pattern] = re.compile(text, re.DOTALL)
        except re.error:
            PATTERNS[pattern] = None
    return PATTERNS[pattern]


# What AWS answers as an empty text where nothing is set, by its own example (CLI reference, describe-launch-configurations).
EMPTY_TEXTS = re.compile(r"LaunchConfigurations\[\d*\]\.(KernelId|RamdiskId)$")


class Checker:
    """Reads values by a shape and notes what is wrong with them."""

    def __init__(self):
        self.problems = []
        # A reply may hold fewer items than the model's least: AWS itself answers with empty lists and maps of tags.
        self.least_items = True

    def wrong(self, path, what):
        self.problems.append(f"{path}: {what}")

    def limits(self, shape, value, path):
        """What the model says of a value beside its type."""
        data = shape.metadata
        text = isinstance(value, str)
        if text and getattr(shape, "enum", None) and value not in shape.enum:
            self.wrong(path, f"`{value}` is not one of {', '.join(shape.enum)}")
        if text and data.get("pattern"):
            pattern = compiled(data["pattern"])
            if pattern and not pattern.fullmatch(value):
                self.wrong(path, f"`{value}` does not match {data['pattern']}")
        size, what = (value, "is") if isinstance(value, (int, float)) else (len(value), "has length")
        if isinstance(value, bool):
            return
        may_be_empty = isinstance(value, (list, dict)) or (size == 0 and EMPTY_TEXTS.search(path) is not None)
        if "min" in data and size < data["min"] and (self.least_items or not may_be_empty):
            self.wrong(path, f"{what} {size}, less than {data['min']}")
        if "max" in data and size > data["max"]:
            self.wrong(path, f"{what} {size}, more than {data['max']}")

    def required(self, shape, value, path):
        for name in shape.required_members:
            if value.get(name) is None:
                self.wrong(path, f"the required member {name} is missing")

    # JSON

    def json(self, shape, raw, path):
        kind = shape.type_name
        expected = {"structure": dict, "map": dict, "list": list, "string": str, "boolean": bool, "blob": str}.get(kind)
        if expected and not isinstance(raw, expected):
            return self.wrong(path, f"{json.dumps(raw)[:60]} is no {kind}")
        if kind == "structure":
            if shape.metadata.get("document") or getattr(shape, "is_document_type", False):
                return raw
            names = {m.serialization.get("name", n): (n, m) for n, m in shape.members.items() if "location" not in m.serialization}
            out = {}
            for key, value in raw.items():
                if key not in names:
                    self.wrong(path, f"has no member {key}")
                elif value is not None:
                    name, member = names[key]
                    out[name] = self.json(member, value, f"{path}.{name}")
            return out
        if kind == "map":
            for key, value in raw.items():
                self.limits(shape.key, key, f"{path} key")
                self.json(shape.value, value, f"{path}.{key}")
        elif kind == "list":
            for i, value in enumerate(raw):
                self.json(shape.member, value, f"{path}[{i}]")
        elif kind in ("integer", "long"):
            if not isinstance(raw, int) or isinstance(raw, bool):
                return self.wrong(path, f"{json.dumps(raw)[:60]} is no whole number")
        elif kind in ("float", "double"):
            if not isinstance(raw, (int, float)) or isinstance(raw, bool):
                return self.wrong(path, f"{json.dumps(raw)[:60]} is no number")
        elif kind == "timestamp":
            if shape.serialization.get("timestampFormat", "unixTimestamp") == "unixTimestamp":
                if not isinstance(raw, (int, float)) or isinstance(raw, bool):
                    self.wrong(path, f"{json.dumps(raw)[:60]} is no time (seconds)")
            else:
                self.text(shape, raw, path)
            return raw
        self.limits(shape, raw, path)
        return raw

    # Text: query parameters, labels, XML

    def text(self, shape, raw, path):
        kind = shape.type_name
        value = raw
        if kind in ("integer", "long"):
            if not re.fullmatch(r"-?\d+", raw):
                return self.wrong(path, f"`{raw}` is no whole number")
            value = int(raw)
        elif kind in ("float", "double"):
            try:
                value = float(raw)
            except ValueError:
                return self.wrong(path, f"`{raw}` is no number")
        elif kind == "boolean":
            if raw not in ("true", "false"):
                return self.wrong(path, f"`{raw}` is neither true nor false")
            value = raw == "true"
        elif kind == "timestamp":
            if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", raw):
                self.wrong(path, f"`{raw}` is no time (ISO 8601)")
            return raw
        elif kind == "blob":
            try:
                base64.b64decode(raw, validate=True)
            except ValueError:
                self.wrong(path, "is not base64")
            return raw
        elif kind != "string":
            return self.wrong(path, f"`{raw[:60]}` is no {kind}")
        self.limits(shape, value, path)
        return value

    def query(self, shape, node, path, ec2):
        """A tree of query parameters, read by a shape."""
        kind = shape.type_name
        if kind not in ("structure", "list", "map"):
            return self.text(shape, node, path) if isinstance(node, str) else self.wrong(path, f"is no {kind}")
        if isinstance(node, str):
            # An empty list is an empty value.
            return [] if kind == "list" and node == "" else self.wrong(path, f"`{node[:60]}` is no {kind}")
        if kind == "structure":
            names = {}
            for name, member in shape.members.items():
                key = member.serialization.get("name", name)
                if ec2:
                    upper = lambda text: text[:1].upper() + text[1:]
                    key = member.serialization.get("queryName") or upper(key)
                elif member.type_name == "list" and member.serialization.get("flattened"):
                    key = member.member.serialization.get("name", key)
                names[key] = (name, member)
            out = {}
            for key, value in node.items():
                if key not in names:
                    self.wrong(path, f"has no member {key}")
                else:
                    name, member = names[key]
                    out[name] = self.query(member, value, f"{path}.{name}", ec2)
            self.required(shape, out, path)
            return out
        flat = ec2 or shape.serialization.get("flattened")
        if not flat:
            inner = "entry" if kind == "map" else shape.member.serialization.get("name", "member")
            if list(node) != [inner]:
                return self.wrong(path, f"items are not spelled .{inner}.N but {', '.join(node)}")
            node = node[inner]
        numbers = sorted((int(k) for k in node if k.isdigit())) if isinstance(node, dict) else None
        if not numbers or numbers != list(range(1, len(node) + 1)):
            return self.wrong(path, "items are not numbered 1, 2, ...")
        items = [node[str(n)] for n in numbers]
        if kind == "list":
            value = [self.query(shape.member, item, f"{path}[{i}]", ec2) for i, item in enumerate(items)]
        else:
            key = shape.key.serialization.get("name", "key")
            val = shape.value.serialization.get("name", "value")
            value = {}
            for item in items:
                if not isinstance(item, dict) or set(item) != {key, val}:
                    self.wrong(path, f"an entry is not {key} and {val}")
                else:
                    name = self.query(shape.key, item[key], f"{path} key", ec2)
                    value[name] = self.query(shape.value, item[val], f"{path}.{name}", ec2)
        self.limits(shape, value, path)
        return value

    def xml(self, shape, element, path):
        kind = shape.type_name
        if kind not in ("structure", "list", "map"):
            if len(element):
                return self.wrong(path, f"has elements inside and is a {kind}")
            return self.text(shape, element.text or "", path)
        if kind == "structure" and (element.text or "").strip():
            return self.wrong(path, "has text inside and is a structure")
        if kind == "structure":
            return self.xml_members(shape, list(element), path)
        if kind == "list":
            item = shape.member.serialization.get("name", "member")
            for child in element:
                if tag(child) != item:
                    self.wrong(path, f"an item is spelled {tag(child)} and not {item}")
            value = [self.xml(shape.member, child, f"{path}[{i}]") for i, child in enumerate(element)]
        else:
            value = {}
            for entry in element:
                parts = {tag(part): part for part in entry}
                key = shape.key.serialization.get("name", "key")
                val = shape.value.serialization.get("name", "value")
                if tag(entry) != "entry" or set(parts) != {key, val}:
                    self.wrong(path, f"an entry is not {key} and {val}")
                else:
                    value[parts[key].text] = self.xml(shape.value, parts[val], f"{path}.{parts[key].text}")
        self.limits(shape, value, path)
        return value

    def xml_members(self, shape, children, path):
        names = {}
        for name, member in (shape.members if shape else {}).items():
            key = member.serialization.get("name", name)
            if member.type_name == "list" and member.serialization.get("flattened"):
                key = member.member.serialization.get("name", key)
            names[key] = (name, member)
        out = {}
        for child in children:
            if tag(child) not in names:
                self.wrong(path, f"has no member {tag(child)}")
                continue
            name, member = names[tag(child)]
            if name in out and not member.serialization.get("flattened"):
                self.wrong(path, f"{name} is there twice")
            out[name] = self.xml(member, child, f"{path}.{name}")
        if shape:
            self.required(shape, out, path)
        return out

    def required_deep(self, shape, value, path):
        """Required members of what was read from JSON, at every depth."""
        if shape.type_name == "structure" and isinstance(value, dict):
            self.required(shape, value, path)
            for name, inner in value.items():
                self.required_deep(shape.members[name], inner, f"{path}.{name}")
        elif shape.type_name == "list" and isinstance(value, list):
            for i, inner in enumerate(value):
                self.required_deep(shape.member, inner, f"{path}[{i}]")


def tag(element):
    return element.tag.rpartition("}")[2]


def tree(pairs):
    """`A.member.1.B=x` as nested dictionaries."""
    root = {}
    for key, value in pairs:
        node = root
        *path, last = key.split(".")
        for part in path:
            node = node.setdefault(part, {})
            if isinstance(node, str):
                raise Wrong(f"{key}: a part of it has a value of its own")
        if last in node:
            raise Wrong(f"{key} is there twice")
        node[last] = value
    return root


# The API version of classic load balancers.
CLASSIC_VERSION = "2012-06-01"


class Exchange:
    """One request and its reply, checked."""

    MODELS = {}
    ENDPOINTS = {}

    def __init__(self, line):
        self.line = line
        self.check = Checker()
        self.headers = {k.lower(): v for k, v in line["headers"].items()}
        self.uri = urllib.parse.urlsplit(line["uri"])
        scope = re.search(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request", self.headers.get("authorization", ""))
        if not scope:
            raise Wrong("the request is not signed")
        self.region, signing = scope.groups()
        if signing not in SERVICES:
            raise Wrong(f"no model for the service {signing}")
        self.service = SERVICES[signing]
        # Classic load balancers have the newer ones' name in a signature, and an API version of their own.
        if self.service == "elbv2" and f"Version={CLASSIC_VERSION}" in (line.get("body") or ""):
            self.service = "elb"
        if self.service not in self.MODELS:
            self.MODELS[self.service] = load(self.service)
        self.model = self.MODELS[self.service]
        self.protocol = protocol_of(self.model)

    def run(self):
        """Checks both halves; returns `service:Operation`, what became of it, and the problems."""
        op = self.request()
        self.endpoint()
        end = self.reply(op)
        return f"{self.service}:{op.name}", end, self.check.problems

    def endpoint(self):
        key = (self.service, self.region)
        if key not in self.ENDPOINTS:
            session = botocore.session.get_session()
            client = session.create_client(
                self.service, region_name=self.region, aws_access_key_id="a", aws_secret_access_key="b"
            )
            self.ENDPOINTS[key] = urllib.parse.urlsplit(client.meta.endpoint_url).hostname
        if self.uri.hostname != self.ENDPOINTS[key]:
            self.check.wrong("endpoint", f"{self.uri.hostname} and not {self.ENDPOINTS[key]}")

    # The request

    def request(self):
        read = {"rest-json": self.rest_request, "json": self.json_request}.get(self.protocol, self.query_request)
        return read()

    def operation(self, name):
        if name not in self.model.operation_names:
            raise Wrong(f"{self.service} has no operation {name}")
        return self.model.operation_model(name)

    def query_request(self):
        if self.line["method"] != "POST" or self.uri.path != "/":
            self.check.wrong("request", f"{self.line['method']} {self.uri.path} and not POST /")
        if not self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            self.check.wrong("request", f"content-type is {self.headers.get('content-type')}")
        pairs = urllib.parse.parse_qsl(self.line["body"], keep_blank_values=True, strict_parsing=True)
        fields = tree(pairs)
        op = self.operation(fields.pop("Action", ""))
        version = fields.pop("Version", None)
        if version != self.model.api_version:
            self.check.wrong("Version", f"{version} and not {self.model.api_version}")
        if op.input_shape is None:
            if fields:
                self.check.wrong(op.name, f"takes no input, and has {', '.join(fields)}")
        else:
            self.check.query(op.input_shape, fields, op.name, self.protocol == "ec2")
        return op

    def json_request(self):
        prefix, _, name = self.headers.get("x-amz-target", "").rpartition(".")
        op = self.operation(name)
        if prefix != self.model.metadata["targetPrefix"]:
            self.check.wrong("x-amz-target", f"{prefix} and not {self.model.metadata['targetPrefix']}")
        version = self.model.metadata.get("jsonVersion", "1.0")
        if self.headers.get("content-type") != f"application/x-amz-json-{version}":
            self.check.wrong("request", f"content-type is {self.headers.get('content-type')}")
        self.json_input(op.input_shape, self.line["body"], op.name)
        return op

    def json_input(self, shape, text, path):
        raw = json.loads(text or "{}")
        value = self.check.json(shape, raw, path)
        self.check.required_deep(shape, value, path)
        return value

    def rest_request(self):
        op, labels = self.route()
        shape, path = op.input_shape, op.name
        seen = {}
        members = shape.members if shape else {}
        query = urllib.parse.parse_qs(self.uri.query, keep_blank_values=True, strict_parsing=bool(self.uri.query))
        query.pop("x-id", None)
        for name, member in members.items():
            place, key = member.serialization.get("location"), member.serialization.get("name", name)
            if place == "uri":
                seen[name] = self.check.text(member, urllib.parse.unquote(labels[key]), f"{path}.{name}")
            elif place == "querystring" and key in query:
                values = query.pop(key)
                if member.type_name == "list":
                    seen[name] = [self.check.text(member.member, v, f"{path}.{name}") for v in values]
                    self.check.limits(member, values, f"{path}.{name}")
                elif len(values) == 1:
                    seen[name] = self.check.text(member, values[0], f"{path}.{name}")
                else:
                    self.check.wrong(path, f"{name} is there {len(values)} times")
        if query:
            self.check.wrong(path, f"has no query parameter {', '.join(query)}")
        body = json.loads(self.line["body"] or "{}")
        in_body = {n: m for n, m in members.items() if "location" not in m.serialization}
        if body and not in_body:
            self.check.wrong(path, f"takes no body, and has {', '.join(body)}")
        elif in_body:
            if body and self.headers.get("content-type") != "application/json":
                self.check.wrong(path, f"content-type is {self.headers.get('content-type')}")
            value = self.check.json(shape, body, path)
            for name, inner in value.items():
                self.check.required_deep(members[name], inner, f"{path}.{name}")
            seen.update(value)
        if shape:
            self.check.required(shape, seen, path)
        return op

    def route(self):
        for name in self.model.operation_names:
            op = self.model.operation_model(name)
            if op.http["method"] != self.line["method"]:
                continue
            path = op.http["requestUri"].split("?")[0]
            pattern = re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>[^/]+)", re.escape(path))
            found = re.fullmatch(pattern, self.uri.path)
            if found:
                return op, found.groupdict()
        raise Wrong(f"{self.service} has no operation {self.line['method']} {self.uri.path}")

    # The reply

    def reply(self, op):
        status, body = self.line["status"], self.line["reply"]
        headers = {k.lower(): v for k, v in self.line["reply_headers"].items()}
        parser = botocore.parsers.create_parser(self.protocol)
        raw = {"status_code": status, "headers": HeadersDict(headers), "body": body.encode(), "context": {}}
        parsed = parser.parse(raw, op.output_shape)
        wanted = {"rest-json": "application/json", "json": "application/x-amz-json"}.get(self.protocol, "text/xml")
        if not headers.get("content-type", "").startswith(wanted):
            self.check.wrong("reply", f"content-type is {headers.get('content-type')}")
        if status >= 300:
            return self.error(op, parsed, status, body)
        path = f"{op.name} reply"
        self.check.least_items = False
        if self.protocol in ("rest-json", "json"):
            shape = op.output_shape
            if shape is None:
                if body not in ("", "{}"):
                    self.check.wrong(path, "has a body, and the operation gives nothing")
            else:
                value = self.check.json(shape, json.loads(body), path)
                self.check.required_deep(shape, value, path)
        else:
            self.xml_reply(op, body, path)
        return "ok"

    def xml_reply(self, op, body, path):
        root = ET.fromstring(body)
        space = root.tag.partition("}")[0].lstrip("{")
        wanted = self.model.metadata.get("xmlNamespace")
        if self.protocol == "ec2":
            # The model names the space of an older version than the API answers with.
            wanted = f"http://ec2.amazonaws.com/doc/{self.model.api_version}/"
        if wanted and space != wanted:
            self.check.wrong(path, f"the name space is {space} and not {wanted}")
        if tag(root) != f"{op.name}Response":
            self.check.wrong(path, f"the root is {tag(root)}")
        children = list(root)
        note = "requestId" if self.protocol == "ec2" else "ResponseMetadata"
        if note not in [tag(child) for child in children]:
            self.check.wrong(path, f"has no {note}")
        children = [child for child in children if tag(child) != note]
        wrapper = op.output_shape and op.output_shape.serialization.get("resultWrapper")
        if wrapper:
            if [tag(child) for child in children] != [wrapper]:
                return self.check.wrong(path, f"does not hold {wrapper} alone")
            children = list(children[0])
        self.check.xml_members(op.output_shape, children, path)

    def error(self, op, parsed, status, body):
        code = parsed.get("Error", {}).get("Code", "")
        shapes = {shape.error_code: shape for shape in op.error_shapes}
        shapes |= {shape.name: shape for shape in op.error_shapes}
        common = {"rest-json": COMMON_JSON, "json": COMMON_JSON_1_1, "query": COMMON_QUERY}.get(self.protocol, COMMON_EC2)
        path = f"{op.name} error {code}"
        if code not in shapes and code not in common:
            known = ", ".join(sorted(shapes)) or "none"
            self.check.wrong(path, f"the operation does not have it (it has {known}) and it is not common to all services")
        if not parsed.get("Error", {}).get("Message"):
            self.check.wrong(path, "has no message")
        shape = shapes.get(code)
        if shape is not None:
            modelled = shape.metadata.get("error", {}).get("httpStatusCode")
            # A fault rule gives a server's error any status of 5xx; so do proxies before AWS.
            if modelled and modelled != status and not (modelled >= 500 and status >= 500):
                self.check.wrong(path, f"has status {status} and not {modelled}")
            if self.protocol == "rest-json":
                self.check.json(shape, json.loads(body), path)
        return code


def operations_named_in(folder):
    """The operations that a client layer names, as `botocore's service:Operation`."""
    found = set()
    for path in glob.glob(f"{folder}/**/*.rs", recursive=True):
        if not path.endswith("_tests.rs"):
            with open(path, encoding="utf-8") as file:
                found |= set(re.findall(r'"([a-z0-9]+):([A-Z][A-Za-z]+)"', file.read()))
    classic = set(load("elb").operation_names) - set(load("elbv2").operation_names)
    names = {(SERVICES[service], op) for service, op in found if service in SERVICES}
    return sorted(f"{'elb' if service == 'elbv2' and op in classic else service}:{op}" for service, op in names)


def main():
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("record")
    args.add_argument("--least-operations", type=int, default=1)
    args.add_argument("--least-exchanges", type=int, default=1)
    args.add_argument("--source", help="the folder whose Rust files name each call as \"service:Operation\"; each must be in the record")
    args = args.parse_args()
    seen, ends = collections.Counter(), collections.Counter()
    wrong = collections.defaultdict(list)
    with open(args.record, encoding="utf-8") as lines:
        for number, text in enumerate(lines, 1):
            line = json.loads(text)
            op = "?"
            try:
                op, end, problems = Exchange(line).run()
                seen[op] += 1
                ends[(op, end)] += 1
            except (Wrong, ValueError, KeyError, TypeError, ET.ParseError, botocore.parsers.ResponseParserError) as why:
                problems = [f"{type(why).__name__}: {why}"]
            for problem in problems:
                # Of many that differ in a position only, one is told.
                same = re.sub(r"\[\d+\]", "[]", problem)
                wrong[(op, same)].append((number, line["from"]))
    for (op, problem), places in sorted(wrong.items()):
        number, source = places[0]
        print(f"WRONG {op}: {problem}  ({len(places)} times; first in line {number}, {source})")
    for op, count in sorted(seen.items()):
        errors = ", ".join(f"{end} {n}" for (o, end), n in sorted(ends.items()) if o == op and end != "ok")
        print(f"{count:>7} {op}{': ' + errors if errors else ''}")
    unread = [pattern for pattern, done in PATTERNS.items() if done is None]
    total = sum(seen.values())
    print(f"{total} exchanges of {len(seen)} operations, {sum(n for (_, e), n in ends.items() if e != 'ok')} of them errors;")
    print(f"{len(PATTERNS) - len(unread)} patterns held, {len(unread)} not readable; {len(wrong)} kinds of mistakes")
    named = operations_named_in(args.source) if args.source else []
    short = [op for op in named if not ends[(op, "ok")]]
    for op in short:
        print(f"TOO LITTLE: {args.source} calls {op}, and the record has no answer to it: let tests/twin/chaos/wire_record.rs ask it")
    if len(seen) < args.least_operations or total < args.least_exchanges:
        print(f"TOO LITTLE: at least {args.least_exchanges} exchanges of {args.least_operations} operations are expected")
        short.append("too little")
    return 1 if wrong or short else 0


if __name__ == "__main__":
    sys.exit(main())
