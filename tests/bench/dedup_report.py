# SPDX-License-Identifier: Apache-2.0
"""From the samples of the deduplication bench to one table, and to JSON."""

import report

MIB = 1 << 20
BESIDES = {"save_again": "save again s (x cp)", "read_cold": "read cold s (x cp)", "read_warm": "read warm s (x cp)"}


def ratios(samples, plain, key):
    """Per round: this program's time over the plain disk's."""
    return [mine[key] / base[key] for mine, base in zip(samples, plain) if key in mine and key in base]


def tool_summary(case, samples, plain):
    summary = {
        "stored_bytes": report.spread([s["stored_bytes"] for s in samples]),
        "stored_over_ideal": report.spread([s["stored_bytes"] / case.ideal for s in samples]),
        "durable_mib_per_second": report.spread([case.bytes / MIB / s["durable"] for s in samples]),
        "settled_mib_per_second": report.spread([case.bytes / MIB / s["settled"] for s in samples]),
        "samples": samples,
    }
    for key in BESIDES:
        values = [s[key] for s in samples if key in s]
        if values:
            summary[f"{key}_seconds"] = report.spread(values)
        over = ratios(samples, plain, key)
        if over:
            summary[f"{key}_over_cp"] = report.spread(over)
    return summary


def case_summary(case, samples):
    """samples: the program's name -> its samples, one a round."""
    plain = samples.get("cp", [])
    return {
        "key": case.key,
        "title": case.title,
        "files": len(case.sizes),
        "bytes": case.bytes,
        "ideal_bytes": case.ideal,
        "tools": {name: tool_summary(case, mine, plain) for name, mine in samples.items()},
    }


def besides_cell(tool, key, name):
    if f"{key}_seconds" not in tool:
        return ""
    cell = f"{tool[key + '_seconds']['median']:.3f}"
    if name != "cp" and f"{key}_over_cp" in tool:
        over = tool[f"{key}_over_cp"]
        cell += f" ({over['median']:.2f}, {over['min']:.2f}..{over['max']:.2f})"
    return cell


def case_lines(case):
    size, ideal = case["bytes"] / MIB, case["ideal_bytes"] / MIB
    yield [f"{case['key']}: {size:.1f} MiB, {case['files']} files, ideal {ideal:.1f}"] + [""] * (4 + len(BESIDES))
    for name, tool in case["tools"].items():
        line = [f"  {name}", f"{tool['stored_bytes']['median'] / MIB:.1f}"]
        line.append(f"{tool['stored_over_ideal']['median']:.3f}")
        for key in ("durable", "settled"):
            line.append(f"{tool[key + '_mib_per_second']['median']:.0f}")
        yield line + [besides_cell(tool, key, name) for key in BESIDES]


def text(result):
    facts = result["machine"]
    load = " ".join(f"{value:.2f}" for value in facts["load_average"])
    memory = facts["memory_bytes"] / (1 << 30)
    parts = [
        f"kernel {facts['kernel']}, {facts['cpus']} CPUs, {memory:.0f} GiB, load average {load}",
        f"disk {facts['disk']}",
        f"{result['rounds']} rounds, models of {result['size_bytes'] / MIB:g} MiB",
    ]
    parts += [f"{name}: {version}" for name, version in result["versions"].items()]
    parts += [f"case {case['key']}: {case['title']}" for case in result["cases"]]
    lines = [["medians", "stored MiB", "/ideal", "durable MiB/s", "settled MiB/s", *BESIDES.values()]]
    for case in result["cases"]:
        lines += case_lines(case)
    return "\n".join(parts + ["", report.table(lines)])
