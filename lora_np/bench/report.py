"""The rows as tables for the terminal, and as plain dicts for JSON."""

from statistics import median

from .results import lora_shares, summary
from .rungs import WORKS, format_rung
from .sides import OURS

RUNG = "C,layers,heads,T,B,V"


def format_row(row):
    """One row in a line."""
    cells = [f"{format_rung(row.rung):<22} {row.work:<11}"]
    if OURS in row.seconds:
        cells.append(f"{OURS} {milliseconds(row, OURS)} ms")
    cells += [f"{label(peer)} {median(ratios):.2f}" for peer, ratios in row.ratios.items()]
    return "   ".join(cells + remarks(row))


def format_tables(rows, setting, peers):
    """Every table: one for each kind of work, the summary, LoRA beside full, and what it ran on."""
    blocks = [work_table(rows, work, peers) for work in WORKS]
    notes = "\n".join(f"{format_rung(row.rung)} {row.work}: {remark}" for row in rows for remark in remarks(row))
    blocks += [summary_table(rows, peers), lora_table(rows), notes, setting_lines(setting)]
    return "\n\n".join(block for block in blocks if block)


def remarks(row):
    """Why some sides have no time, and whether the times are not to be trusted."""
    busy = f"the machine was busy: its peak itself varied by a factor of {row.peak_spread or 1.0:.2f}"
    return [f"{name} {note}" for name, note in row.notes.items()] + [busy] * row.disturbed


def work_table(rows, work, peers):
    """The rows of one kind of work: times, ratios with their spread, operations a second, share of the peak."""
    header = [RUNG, f"{OURS} ms"]
    for peer in peers:
        header += [f"{label(peer)} ms", "ratio (min–max)"]
    body = []
    for row in rows:
        if row.work != work or OURS not in row.seconds:
            continue
        cells = [format_rung(row.rung), milliseconds(row, OURS)]
        for peer in peers:
            cells += [milliseconds(row, peer), spread(row.ratios[peer])] if peer in row.ratios else ["–", "–"]
        share = f"{100 * row.share_of_peak[OURS]:.0f} %" if row.share_of_peak else "–"
        body.append([*cells, f"{row.gflops[OURS]:.0f}", share])
    return table(f"{work}: {WORKS[work]}", [*header, "GFLOP/s", "of peak"], body)


def summary_table(rows, peers):
    """Geometric mean and lowest ratio over the rungs."""
    body = [
        [s["work"], label(s["peer"]), f"{s['mean']:.2f}", f"{s['lowest']:.2f}", format_rung(s["lowest_rung"])]
        for s in summary(rows, peers)
    ]
    title = f"peer's time / {OURS}'s over the rungs (above 1: {OURS} is faster)"
    return table(title, ["work", "peer", "geometric mean", "lowest", "at"], body)


def lora_table(rows):
    """LoRA's step as a share of the full step."""
    body = [
        [format_rung(s["rung"]), s["work"], *(f"{s[key]:.2f}" for key in ("time", "flops", "activation_bytes"))]
        for s in lora_shares(rows)
    ]
    header = [RUNG, "work", "time", "predicted from FLOPs", "activations held"]
    return table(f"{OURS}'s LoRA step as a share of its full step", header, body)


def setting_lines(setting):
    """The machine, the versions, and the user's variables that could change a time."""

    def listed(values, sign):
        return ", ".join(f"{name}{sign}{value}" for name, value in values.items())

    lines = ["{machine}, {cores} cores; {threads} threads, {rounds} rounds, {seconds:.0f} s in all".format(**setting)]
    lines += [f"{side}: {listed(numbers, ' ')}" for side, numbers in setting["versions"].items()]
    for key, title in (("environment", "set here"), ("not_passed_on", "set here, and kept from every side")):
        lines += [f"{title}: {listed(setting[key], '=')}"] if setting[key] else []
    return "\n".join(lines)


def label(peer):
    """A peer's name; of another checkout, old=/path/to/it, the part before the path."""
    return peer.partition("=")[0]


def milliseconds(row, name):
    return f"{1e3 * median(row.seconds[name]):.4g}"


def spread(ratios):
    """The median ratio with the lowest and the highest round."""
    return f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def table(title, header, body):
    """Right-aligned columns below a title; "" without rows."""
    widths = [max(map(len, column)) for column in zip(header, *body)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in [header, *body]]
    return "\n".join([title, lines[0], "-" * len(lines[0]), *lines[1:]]) if body else ""


def to_dicts(rows, setting, peers):
    """Everything for JSON."""
    return {
        **setting,
        "peers": list(peers),
        "rows": [
            row._asdict()
            | {"rung": row.rung._asdict(), "agreement": {peer: a._asdict() for peer, a in row.agreement.items()}}
            for row in rows
        ],
        "summary": summary(rows, peers),
        "lora_shares": lora_shares(rows),
    }
