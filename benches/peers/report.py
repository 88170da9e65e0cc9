"""What was measured, as a table for people and as a chart."""

from __future__ import annotations

import json
from pathlib import Path
from xml.sax.saxutils import escape

from tools import STEP_NAMES

MINE = "larder"
COLOURS = ["#2a7f62", "#b0b0b0", "#c9a227", "#7d6b91", "#a4483c"]


def markdown(result: dict) -> str:
    """Gives the table; ratios are larder's figure over the other tool's."""
    names = list(result["tools"])
    others = [name for name in names if name != MINE]
    head = ["", *names, *(f"{MINE} / {other}" for other in others)]
    lines = [line(head), line(["---", *("---:" for _ in head[1:])])]
    for label, values, digits in rows(result):
        ratios = [f"{values[MINE] / values[other]:.2f}" if values[other] else "" for other in others]
        lines.append(line([label, *(f"{values[name]:,.{digits}f}" for name in names), *ratios]))
    return "\n".join(lines)


def rows(result: dict) -> list[tuple[str, dict[str, float], int]]:
    """Gives each row's label, its value by tool, and the digits that are shown."""
    names = list(result["tools"])
    found = []
    steps = next(iter(result["median"].values()))
    for key, unit, digits in (("wall_s", "s", 2), ("cpu_s", "s of CPU", 2), ("rss_mib", "MiB at most", 0)):
        for step in steps:
            values = {name: result["median"][name][step][key] for name in names}
            found.append((f"{STEP_NAMES[step]}, {unit}", values, digits))
    if result["repository"]:
        mib = {name: result["repository"][name]["bytes"] / 2**20 for name in names}
        found.append(("repository after the first backup, MiB", mib, 1))
        found.append(("objects in it", {name: result["repository"][name]["objects"] for name in names}, 0))
    return found


def line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def chart(result: dict) -> str:
    """Draws the wall times and the size, each row to its own scale."""
    names = list(result["tools"])
    drawn = [row for row in rows(result) if row[0].endswith((", s", ", MiB"))]
    width, label_width, bar_height, gap = 760, 330, 14, 14
    row_height = len(names) * (bar_height + 2) + gap
    height = 50 + len(drawn) * row_height
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12" role="img">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="10" y="22" font-size="14">{escape(result["data"]["name"])}: '
        f"{' and '.join(escape(v) for v in names)}, less is better</text>",
    ]
    y = 44
    for label, values, digits in drawn:
        middle = y + row_height / 2 - gap / 2
        out.append(f'<text x="{label_width - 10}" y="{middle + 4:.0f}" text-anchor="end">{escape(label)}</text>')
        most = max(values.values()) or 1
        for colour, name in zip(COLOURS, names):
            length = values[name] / most * (width - label_width - 130)
            out.append(
                f'<rect x="{label_width}" y="{y}" width="{length:.1f}" height="{bar_height}" fill="{colour}"/>'
            )
            text = f"{values[name]:,.{digits}f} {name}"
            out.append(f'<text x="{label_width + length + 6:.1f}" y="{y + 11}">{escape(text)}</text>')
            y += bar_height + 2
        y += gap
    return "\n".join([*out, "</svg>", ""])


def page(result: dict, benches: Path) -> str:
    """Writes the section on figures: how they were taken, the table, the chart, and what else was measured."""
    data, machine = result["data"], result["machine"]
    versions = ", ".join(result["tools"].values())
    text = [
        "## Figures",
        "",
        f"The source of Linux 6.1 ({data['files']:,} files, {data['bytes'] / 1e6:,.0f} MB), repository, caches "
        f"and restored files on a tmpfs, source in the page cache; medians of {result['runs']} runs, the tools "
        f"taking turns, every restore compared with the source. {machine['cores']} cores ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB, Linux {machine['kernel']}; {versions}; {result['date']}; load "
        f"before the first run {result['load_before']}. Passwords on both sides, so every row contains the "
        "key derivation of the first.",
        "",
        "```sh",
        result["command"],
        "```",
        "",
        f"![{data['name']}](peers/results/{data['name']}.svg)",
        "",
        markdown(result),
        "",
    ]
    memory = benches / "memory" / "results.json"
    if memory.exists():
        text += memory_section(json.loads(memory.read_text()))
    text += [results.read_text() for results in sorted(benches.glob("*/results.md"))]
    return "\n".join(text)


def memory_section(result: dict) -> list[str]:
    """Gives the table of peak memory by number of entries."""
    steps = list(result["rows"][0]["rss_mib"])
    base = result["rows"][0]["rss_mib"]
    lines = [
        "Peak resident memory by the number of entries, in MiB, and its ratio to the first row "
        f"(`{result['command']}`):",
        "",
        line(["", *steps]),
        line(["---", *("---:" for _ in steps)]),
    ]
    for row in result["rows"]:
        peaks = row["rss_mib"]
        cells = [f"{peaks[step]:.0f} ({peaks[step] / base[step]:.2f})" if step in peaks else "" for step in steps]
        lines.append(line([row["name"], *cells]))
    return [*lines, ""]
