# SPDX-License-Identifier: Apache-2.0
"""A strict reader of Prometheus' text exposition format 0.0.4.

    metrics.py FILE                  checks all of it, by the format's rules and by those for names and units
    metrics.py FILE NAME [LABEL=VALUE...]   also prints the value of the one sample that has exactly these labels
    metrics.py FILE NAME LABEL       also prints the values of that label, one a line as JSON texts
"""

import json
import math
import re
import sys

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
VALUE = re.compile(r"[+-]?(Inf|\d+(\.\d+)?([eE][+-]?\d+)?)|NaN")
TYPES = {"counter", "gauge", "histogram"}
ENDINGS = {"histogram": ("_bucket", "_sum", "_count")}
SCALED_UNITS = ("_milliseconds", "_ms", "_kib", "_mib", "_kilobytes", "_minutes", "_percent")


class Malformed(Exception):
    pass


def expect(condition, line, what):
    if not condition:
        raise Malformed(f"{what}: {line!r}")


def read_label_value(line, at):
    out = []
    while line[at] != '"':
        if line[at] == "\\":
            at += 1
            expect(line[at] in '\\"n', line, "an escape that the format does not have")
            out.append("\n" if line[at] == "n" else line[at])
        else:
            out.append(line[at])
        at += 1
        expect(at < len(line), line, "a label's value without an end")
    return "".join(out), at + 1


def read_labels(line, at):
    labels = {}
    while line[at] != "}":
        match = LABEL.match(line, at)
        expect(match, line, "a label's name")
        name, at = match.group(), match.end()
        expect(line[at : at + 2] == '="', line, "a label without a value")
        expect(name not in labels, line, "a label twice")
        labels[name], at = read_label_value(line, at + 2)
        if line[at] == ",":
            at += 1
        else:
            expect(line[at] == "}", line, "labels without an end")
    return labels, at + 1


def read_sample(line):
    match = NAME.match(line)
    expect(match, line, "a metric's name")
    at = match.end()
    labels = {}
    if line[at] == "{":
        labels, at = read_labels(line, at + 1)
    expect(line[at] == " " and VALUE.fullmatch(line, at + 1), line, "a value")
    return match.group(), labels, float(line[at + 1 :])


class Family:
    def __init__(self, name, kind):
        self.name, self.kind, self.samples = name, kind, []

    def owns(self, name):
        return name in [self.name + ending for ending in ENDINGS.get(self.kind, ("",))]

    def check_name(self):
        expect(self.name.startswith("ckptfs_"), self.name, "whose metric it is")
        expect(self.name.endswith("_total") == (self.kind == "counter"), self.name, "counters end in _total")
        expect(not any(unit in self.name for unit in SCALED_UNITS), self.name, "units are bytes and seconds")

    def check(self):
        self.check_name()
        seen = set()
        for name, labels, value in self.samples:
            key = (name, tuple(sorted(labels.items())))
            expect(key not in seen, key, "a series twice")
            seen.add(key)
            expect(("le" in labels) == name.endswith("_bucket"), name, "le is a bucket's")
            if self.kind != "gauge":
                expect(value >= 0 and math.isfinite(value), name, "a count")
        if self.kind == "histogram":
            self.check_histogram()

    def check_histogram(self):
        buckets = [(float(labels["le"]), value) for name, labels, value in self.samples if name.endswith("_bucket")]
        expect(buckets == sorted(buckets), self.name, "buckets in their order")
        expect([value for _, value in buckets] == sorted(value for _, value in buckets), self.name, "buckets add up")
        expect(buckets and buckets[-1][0] == math.inf, self.name, "the last bucket")
        counts = [value for name, _, value in self.samples if name.endswith("_count")]
        expect(counts == [buckets[-1][1]], self.name, "the count is the last bucket's")


def read(path):
    with open(path, "rb") as file:
        text = file.read().decode("utf-8")
    expect(text.endswith("\n"), text[-20:], "a line without an end")
    families, helped = [], None
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            helped = line.split(" ", 3)[2]
            expect(len(line.split(" ", 3)) == 4 and NAME.fullmatch(helped), line, "a help text")
            expect(all(family.name != helped for family in families), line, "a family twice")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            expect(name == helped and kind in TYPES, line, "a type behind its help")
            families.append(Family(name, kind))
        else:
            sample = read_sample(line)
            expect(families and families[-1].owns(sample[0]), line, "a sample behind its type")
            families[-1].samples.append(sample)
    for family in families:
        family.check()
    return [sample for family in families for sample in family.samples]


def main(arguments):
    samples = read(arguments[0])
    if len(arguments) == 1:
        return 0
    named = [sample for sample in samples if sample[0] == arguments[1]]
    if len(arguments) == 3 and "=" not in arguments[2]:
        for _, labels, _ in named:
            print(json.dumps(labels[arguments[2]]))
        return 0
    wanted = dict(argument.split("=", 1) for argument in arguments[2:])
    values = [value for _, labels, value in named if labels == wanted]
    if len(values) != 1:
        print(f"{arguments[1]} {wanted}: {len(values)} samples", file=sys.stderr)
        return 1
    print(f"{values[0]:.17g}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
