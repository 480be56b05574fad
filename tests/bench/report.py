# SPDX-License-Identifier: Apache-2.0
"""From samples to one table, and to JSON."""

import os
import platform
import statistics
import subprocess
import sys

RSS_TARGET = 256 << 20
GIB = 1 << 30


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def machine(directory):
    """What the numbers depend on besides the program."""
    disk = subprocess.run(["findmnt", "-nro", "SOURCE,FSTYPE,OPTIONS", "--target", directory], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout.strip()
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        memory = int(meminfo.readline().split()[1]) * 1024
    return {
        "kernel": platform.release(),
        "load_average": list(os.getloadavg()),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": memory,
        "disk": disk or "unknown",
    }


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(samples, plain, again):
    """Per round: the side's time over the mean of the two plain sides' times in the same round."""
    return [s.seconds / ((a.seconds + b.seconds) / 2) for s, a, b in zip(samples, plain, again)]


def row_summary(row, by_side):
    """by_side: the side's name -> its samples, one a round. The first two sides are the plain disk, twice."""
    names = list(by_side)
    plain, again = by_side[names[0]], by_side[names[1]]
    if not plain:
        return {"key": row.key, "title": row.title, "possible": False}
    summary = {
        "key": row.key,
        "title": row.title,
        "possible": True,
        "bytes": plain[0].bytes,
        "noise": spread([b.seconds / a.seconds for a, b in zip(plain, again)]),
        "sides": {},
    }
    for name, samples in by_side.items():
        gib = samples[0].bytes / GIB
        side = {
            "seconds": spread([s.seconds for s in samples]),
            "samples": [s.seconds for s in samples],
            "application_cpu_per_gib": statistics.median(s.application_cpu for s in samples) / gib,
            "daemon_cpu_per_gib": statistics.median(s.daemon_cpu for s in samples) / gib,
        }
        if name not in names[:2]:
            side["ratio"] = spread(ratios(samples, plain, again))
            if name in row.targets:
                side["target"] = row.targets[name]
                side["reached"] = side["ratio"]["median"] <= row.targets[name]
        summary["sides"][name] = side
    return summary


def ratio_cell(side):
    ratio = side["ratio"]
    cell = f"{ratio['median']:.2f} ({ratio['min']:.2f}..{ratio['max']:.2f})"
    if "target" in side:
        cell += f" <={side['target']:g} {'yes' if side['reached'] else 'NO'}"
    return cell


def table(lines):
    """Left-aligned first column, the others right-aligned."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = []
    for line in lines:
        cells = [line[0].ljust(widths[0])] + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:])]
        text.append("  ".join(cells).rstrip())
    return "\n".join(text)


def time_table(rows, mounts):
    head = ["seconds, median", "plain", "plain again/plain"]
    for name in mounts:
        head += [name, f"{name}/plain"]
    lines = [head]
    for row in rows:
        if not row["possible"]:
            lines.append([row["title"], "not possible: caches cannot be dropped", ""] + ["", ""] * len(mounts))
            continue
        first = next(iter(row["sides"].values()))
        noise = row["noise"]
        line = [row["title"], f"{first['seconds']['median']:.3f}",
                f"{noise['median']:.2f} ({noise['min']:.2f}..{noise['max']:.2f})"]
        for name in mounts:
            side = row["sides"][name]
            line += [f"{side['seconds']['median']:.3f}", ratio_cell(side)]
        lines.append(line)
    return table(lines)


def cpu_table(rows, mounts):
    head = ["CPU s per GiB, application + daemon", "plain"] + mounts
    lines = [head]
    for row in rows:
        if not row["possible"] or row["bytes"] < GIB // 64:
            continue
        sides = list(row["sides"].items())
        line = [row["title"], f"{sides[0][1]['application_cpu_per_gib']:.2f}"]
        for name in mounts:
            side = row["sides"][name]
            line.append(f"{side['application_cpu_per_gib']:.2f} + {side['daemon_cpu_per_gib']:.2f}")
        lines.append(line)
    return table(lines)


def text(result):
    facts, mounts = result["machine"], result["mounts"]
    names = list(mounts)
    load = " ".join(f"{value:.2f}" for value in facts["load_average"])
    parts = [
        f"kernel {facts['kernel']}, {facts['cpus']} CPUs, {facts['memory_bytes'] / GIB:.0f} GiB, load average {load}",
        f"disk {facts['disk']}",
        f"{result['rounds']} rounds, {result['size_bytes'] / GIB:g} GiB files, "
        f"{result['small_files']} small files",
    ]
    for name, mount in mounts.items():
        features = mount["status"]["features"]
        parts.append(f"{name}: ckptfs {mount['status']['version']}, libfuse {features['libfuse']}, "
                     f"passthrough {'on' if features['passthrough'] else 'off'}, "
                     f"read-ahead {features['read_ahead_kib']} KiB")
    parts += ["", time_table(result["rows"], names)]
    if names:
        parts += ["", cpu_table(result["rows"], names), ""]
    for name, mount in mounts.items():
        peak = mount["peak_rss_bytes"]
        parts.append(f"peak RSS, {name}: {peak / (1 << 20):.0f} MiB "
                     f"<={RSS_TARGET >> 20} {'yes' if peak <= RSS_TARGET else 'NO'}")
    return "\n".join(parts)
