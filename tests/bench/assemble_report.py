# SPDX-License-Identifier: Apache-2.0
"""From the samples of the bench of assembly to tables, and to JSON."""

import statistics
import subprocess

import report

MIB = 1 << 20
LOAD_TARGETS = {"cold": 1.3, "warm": 1.05}
TITLES = {"reference, cold": "the library's tool, cold", "reference, warm": "the library's tool, warm",
          "assemble, cold": "ckptfs assemble, cold", "assemble, warm": "ckptfs assemble, warm"}


def versions(options):
    names = ("torch", "transformers", "accelerate", "deepspeed", "safetensors")
    script = f"from importlib.metadata import version; print(', '.join(n + ' ' + version(n) for n in {names}))"
    done = subprocess.run([options.python, "-c", script], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def median(samples, key):
    values = [sample[key] for sample in samples if sample.get(key) is not None]
    return statistics.median(values) if values else None


def tool_summary(samples, base):
    keys = ("seconds", "whole", "loading", "cpu", "peak_bytes", "written_bytes")
    summary = {key: median(samples, key) for key in keys}
    if base:
        summary["faster"] = report.spread([b["seconds"] / s["seconds"] for s, b in zip(samples, base)])
    return summary | {"samples": samples}


def mount_summary(samples, off):
    """What assembling cost is what the mount that does not assemble did not need."""
    summary = {key: median(samples, key) for key in ("seconds", "cpu", "peak_bytes")}
    for key in ("cpu", "written_bytes", "stored_bytes"):
        summary[f"{key}_more"] = statistics.median(s[key] - o[key] for s, o in zip(samples, off))
    return summary | {"samples": samples}


def load_ratio(samples, plain, again):
    return report.spread([s["seconds"] / ((a["seconds"] + b["seconds"]) / 2)
                          for s, a, b in zip(samples, plain, again)])


def load_summary(by_side, target):
    plain, again = by_side["plain"], by_side.get("plain again", by_side["plain"])
    summary = {"noise": report.spread([b["seconds"] / a["seconds"] for a, b in zip(plain, again)]), "sides": {}}
    for name, samples in by_side.items():
        side = {"seconds": report.spread([s["seconds"] for s in samples]), "cpu": median(samples, "cpu"),
                "samples": samples}
        if not name.startswith("plain"):
            side["ratio"] = load_ratio(samples, plain, again)
            if target:
                side |= {"target": target, "reached": side["ratio"]["median"] <= target}
        summary["sides"][name] = side
    return summary


def case_summary(kind, world, size, tools, saves, first, loads):
    rows = {}
    for name, samples in tools.items():
        tool, state = name.split(", ")
        rows[name] = tool_summary(samples, tools[f"reference, {state}"] if tool == "assemble" else None)
    mounts = {name: mount_summary(samples, saves["assemble=off"]) for name, samples in saves.items()
              if name != "assemble=off"}
    summary = {"kind": kind, "world": world, "model_bytes": size, "tools": rows, "mounts": mounts, "loads": {}}
    for state, by_side in loads.items():
        summary["loads"][state] = load_summary(by_side, LOAD_TARGETS[state])
    if first:
        summary["loads"]["first after the save"] = load_summary(first, None)
    return summary


def mib(count):
    return f"{count / MIB:.1f}"


def tool_lines(case):
    lines = [["making the file", "seconds", "faster", "libraries s", "CPU s", "peak MiB", "written MiB"]]
    for key, title in TITLES.items():
        tool = case["tools"].get(key)
        if not tool:
            continue
        faster = f"{tool['faster']['median']:.1f} ({tool['faster']['min']:.1f}..{tool['faster']['max']:.1f})" \
            if "faster" in tool else ""
        loading = f"{tool['loading']:.1f}" if tool["loading"] is not None else ""
        lines.append([title, f"{tool['seconds']:.2f}", faster, loading, f"{tool['cpu']:.2f}", mib(tool["peak_bytes"]),
                      mib(tool["written_bytes"])])
    for name, mount in case["mounts"].items():
        lines.append([f"mount, {name}: after the last close", f"{mount['seconds']:.2f}", "", "",
                      f"{mount['cpu_more']:+.2f}", mib(mount["peak_bytes"]),
                      f"{mount['stored_bytes_more'] / MIB:+.2f}"])
    return lines


def load_line(state, load, names):
    noise, plain = load["noise"], load["sides"]["plain"]
    line = [state, f"{plain['seconds']['median']:.3f}",
            f"{noise['median']:.2f} ({noise['min']:.2f}..{noise['max']:.2f})" if state in LOAD_TARGETS else ""]
    for name in names:
        side = load["sides"].get(name)
        line += [f"{side['seconds']['median']:.3f}", report.ratio_cell(side)] if side else ["", ""]
    return line


def load_cpu_line(load, names):
    """Of the application and, on a mount, of the daemon."""
    line = ["  CPU s", f"{load['sides']['plain']['cpu']:.2f}", ""]
    for name in names:
        line += [f"{load['sides'][name]['cpu']:.2f}", ""]
    return line


def load_lines(case):
    names = list(case["mounts"]) + ["one object"]
    head = ["from_pretrained, seconds", "plain", "plain again/plain"]
    for name in names:
        head += [name, f"{name}/plain"]
    lines = [head]
    for state, load in case["loads"].items():
        lines.append(load_line(state, load, names))
        if state in LOAD_TARGETS:
            lines.append(load_cpu_line(load, names))
    return lines


def case_text(case):
    parts = [f"{case['kind']}, {case['world']} ranks, a model of {case['model_bytes'] / MIB:.0f} MiB",
             report.table(tool_lines(case))]
    if case["loads"]:
        parts.append(report.table(load_lines(case)))
    return "\n".join(parts) + "\n"


def text(result):
    facts = result["machine"]
    load = " ".join(f"{value:.2f}" for value in facts["load_average"])
    after = " ".join(f"{value:.2f}" for value in result["load_average_after"])
    head = [f"kernel {facts['kernel']}, {facts['cpus']} CPUs, {facts['memory_bytes'] / (1 << 30):.0f} GiB, "
            f"load average {load} before, {after} after", f"disk {facts['disk']}", result["versions"],
            f"{result['rounds']} rounds of assembling, {result['loads']} of loading", ""]
    return "\n".join(head + [case_text(case) for case in result["cases"]])
