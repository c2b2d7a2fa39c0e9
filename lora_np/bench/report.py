"""The rows as tables for the terminal, and as plain dicts for JSON."""

from statistics import median

from .results import disturbed, gflops, lora_shares, peak_spread, ratios, share_of_peak, summary, timed
from .rungs import WORKS, format_rung
from .sides import OURS


def format_row(row):
    """One row in a line, as it comes in."""
    parts = [f"{format_rung(row.rung):<22} {row.work:<11}"]
    if OURS in row.seconds:
        parts.append(f"{OURS} {milliseconds(row, OURS)} ms")
    for peer in row.agreements:
        if peer in row.seconds and OURS in row.seconds:
            parts.append(f"{label(peer)} {median(ratios(row, peer)):.2f}")
    parts += [f"{name} {note}" for name, note in row.notes.items()]
    parts += ["the machine was busy"] * disturbed(row)
    return "   ".join(parts)


def format_tables(rows, setting, peers):
    """Every table: one for each kind of work, the summary, LoRA beside full, and what it ran on."""
    works = [work for work in WORKS if any(row.work == work for row in rows)]
    blocks = [work_table(rows, work, peers) for work in works]
    blocks += [summary_table(rows, works, peers), lora_table(rows), notes_list(rows), setting_lines(setting)]
    return "\n\n".join(block for block in blocks if block)


def work_table(rows, work, peers):
    """The rows of one kind of work: times, ratios with their spread, operations a second, share of the peak."""
    header = ["C,layers,heads,T,B,V", f"{OURS} ms"]
    for peer in peers:
        header += [f"{label(peer)} ms", "ratio (min–max)"]
    body = []
    for row in timed(rows, work, OURS):
        cells = [format_rung(row.rung), milliseconds(row, OURS)]
        for peer in peers:
            cells += [milliseconds(row, peer), spread(row, peer)] if peer in row.seconds else ["–", "–"]
        share = share_of_peak(row)
        body.append([*cells, f"{gflops(row):.0f}", f"{100 * share:.0f} %" if share else "–"])
    return f"{work}: {WORKS[work]}\n" + table([*header, "GFLOP/s", "of peak"], body) if body else ""


def summary_table(rows, works, peers):
    """Geometric mean and lowest ratio over the rungs."""
    body = [
        [s["work"], label(s["peer"]), f"{s['mean']:.2f}", f"{s['lowest']:.2f}", format_rung(s["lowest_rung"])]
        for s in summary(rows, works, peers)
    ]
    title = f"peer's time / {OURS}'s over the rungs (above 1: {OURS} is the faster)\n"
    return title + table(["work", "peer", "geometric mean", "lowest", "at"], body) if body else ""


def lora_table(rows):
    """LoRA's step as a share of the full step."""
    body = [
        [format_rung(s["rung"]), s["work"], *(f"{s[key]:.2f}" for key in ("time", "flops", "activation_bytes"))]
        for s in lora_shares(rows)
    ]
    title = f"{OURS}'s LoRA step as a share of its full step\n"
    header = ["C,layers,heads,T,B,V", "work", "time", "predicted from FLOPs", "activations held"]
    return title + table(header, body) if body else ""


def notes_list(rows):
    """Why some sides have no time, and which times are not to be trusted."""
    lines = []
    for row in rows:
        notes = [f"{name} {note}" for name, note in row.notes.items()]
        if disturbed(row):
            notes.append(f"the machine was busy: its peak itself varied by a factor of {peak_spread(row):.2f}")
        lines += [f"{format_rung(row.rung)} {row.work}: {note}" for note in notes]
    return "\n".join(lines)


def setting_lines(setting):
    """The machine, the versions, and what the user's environment sets that could change a time."""
    lines = [
        f"{setting['machine']}, {setting['cores']} cores; {setting['threads']} threads, {setting['rounds']} rounds, "
        f"{setting['seconds']:.0f} s in all"
    ]
    for side, found in setting["versions"].items():
        lines.append(f"{side}: " + ", ".join(f"{name} {number}" for name, number in found.items()))
    if setting["environment"]:
        lines.append("set here: " + ", ".join(f"{name}={value}" for name, value in setting["environment"].items()))
    if setting["not_passed_on"]:
        lines.append(
            "set here, and kept from every side: "
            + ", ".join(f"{name}={value}" for name, value in setting["not_passed_on"].items())
        )
    return "\n".join(lines)


def label(peer):
    """A peer's name; of another checkout, old=/path/to/it, the part before the path."""
    return peer.partition("=")[0]


def milliseconds(row, name):
    return f"{1e3 * median(row.seconds[name]):.4g}"


def spread(row, peer):
    """The median ratio with the lowest and the highest round."""
    found = ratios(row, peer)
    return f"{median(found):.2f} ({min(found):.2f}–{max(found):.2f})"


def table(header, body):
    """Columns as wide as they must be, flush right."""
    widths = [max(len(line[i]) for line in [header, *body]) for i in range(len(header))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths)) for line in [header, *body]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def to_dicts(rows, setting, peers):
    """Everything that was measured, ready for JSON."""
    works = [work for work in WORKS if any(row.work == work for row in rows)]
    return {
        **setting,
        "peers": list(peers),
        "rows": [row_to_dict(row) for row in rows],
        "summary": summary(rows, works, peers),
        "lora_shares": lora_shares(rows),
    }


def row_to_dict(row):
    """One row: each side's median seconds by round, and what follows from them."""
    return {
        "rung": row.rung._asdict(),
        "work": row.work,
        "flops": row.flops,
        "activation_bytes": row.activation_bytes,
        "seconds": row.seconds,
        "ratios": {peer: ratios(row, peer) for peer in row.agreements if {peer, OURS} <= set(row.seconds)},
        "gflops": {name: gflops(row, name) for name in row.seconds},
        "share_of_peak": {name: share_of_peak(row, name) for name in row.seconds},
        "peak_spread": peak_spread(row),
        "agreement": {peer: agreement._asdict() for peer, agreement in row.agreements.items()},
        "notes": row.notes,
    }
