"""Report the results, with time ratios and relative costs, as tables for the terminal and as dicts for JSON."""

from statistics import geometric_mean, median
from typing import NamedTuple

from .backends import OURS, PEAK_FLOPS
from .case import WORKS, Rung, counted_bytes, flops, format_rung, tokens

RUNG = "C,layers,heads,T,B,V(,K,F)(,rR)"
COSTS = ("time", "flops", "activation_bytes")  # the costs of a step: measured time, counted FLOPs and bytes

# The largest `peak_spread` of an idle machine. On a busy machine, the ratios are unreliable: other programs slow down
# backends whose threads spin while they wait, as OpenMP's do, far more than those whose threads sleep.
QUIET = 1.15


class Row(NamedTuple):
    """The results for one rung (a set of model and batch sizes) and one kind of work."""

    rung: Rung
    work: str
    flops: int
    counted_bytes: dict  # of lora_np's arrays, see `counted_bytes`
    seconds: dict  # backend -> list of the median time of a step in each round, in seconds
    notes: dict  # backend -> the reason why it was not timed
    agreement: dict  # peer -> Agreement
    ratios: dict  # peer -> list of its time / lora_np's time in each round; above 1, lora_np is faster
    gflops: dict  # backend -> `flops` per second, in units of 10⁹
    share_of_peak: dict  # backend -> its gflops / those of "peak", a large matrix product; {} if unknown
    peak_bytes: dict  # backend -> peak memory of its process during its steps, or None if unknown
    peak_spread: float | None  # slowest / fastest time of "peak" over the rounds; 1 to 1.1 on an idle machine

    @property
    def failed(self):
        """Whether lora_np was not timed or a peer disagrees with it. A missing peer is not a failure."""
        return OURS in self.notes or any(agreement.problem for agreement in self.agreement.values())

    @property
    def remarks(self):
        """The reasons why backends were not timed, and a remark if the machine was busy."""
        reasons = [f"{name} {note}" for name, note in self.notes.items()]
        if (self.peak_spread or 1.0) > QUIET:
            reasons.append(f"the machine was busy: its speed varied by a factor of {self.peak_spread:.2f}")
        return reasons


def make_row(rung, work, seconds, agreement, notes, peak_bytes):
    """Make a Row from measured times; the parameters are fields of Row."""
    counted = flops(rung, work)
    compared = [peer for peer in agreement if {peer, OURS} <= set(seconds)]
    ratios = {peer: [theirs / ours for theirs, ours in zip(seconds[peer], seconds[OURS])] for peer in compared}
    done = {"peak": PEAK_FLOPS}
    gflops = {name: done.get(name, counted) / median(times) / 1e9 for name, times in seconds.items()}
    shares, spread = {}, None
    if "peak" in seconds:
        shares = {name: speed / gflops["peak"] for name, speed in gflops.items()}
        spread = max(seconds["peak"]) / min(seconds["peak"])
    held = counted_bytes(rung, work)
    return Row(rung, work, counted, held, seconds, notes, agreement, ratios, gflops, shares, peak_bytes, spread)


def summary(rows, peers):
    """Return the geometric mean and the minimum of all rungs' median ratios, for each kind of work and each peer.

    Returns
    -------
    list of dicts: "work", "peer", "rungs" (the number of rungs), "mean", "lowest", "lowest_rung"
    """
    lines = []
    for work in WORKS:
        for peer in peers:
            middle = {row.rung: median(row.ratios[peer]) for row in rows if row.work == work and peer in row.ratios}
            if middle:
                lowest = {"lowest": min(middle.values()), "lowest_rung": list(min(middle, key=middle.get))}
                mean = geometric_mean(middle.values())
                lines.append({"work": work, "peer": peer, "rungs": len(middle), "mean": mean} | lowest)
    return lines


def lora_shares(rows):
    """Return each LoRA step's time, FLOPs and activation bytes, relative to full fine-tuning on the same rung.

    Returns
    -------
    list of dicts: "rung", "work", and a share for each cost in COSTS
    """
    costs = {}
    for row in (row for row in rows if OURS in row.seconds):
        costs[row.rung, row.work] = median(row.seconds[OURS]), row.flops, row.counted_bytes["activations"]
    return [
        {"rung": list(rung), "work": work} | {name: a / b for name, a, b in zip(COSTS, cost, costs[rung, "full"])}
        for (rung, work), cost in costs.items()
        if work.startswith("lora_") and (rung, "full") in costs
    ]


def to_dicts(rows, setting, peers):
    """Convert all results to a dict that can be written as JSON."""
    of_rows = []
    for row in rows:
        agreement = {peer: judged._asdict() for peer, judged in row.agreement.items()}
        of_rows.append(row._asdict() | {"rung": row.rung._asdict(), "agreement": agreement})
    tables = {"rows": of_rows, "summary": summary(rows, peers), "lora_shares": lora_shares(rows)}
    return {**setting, "peers": list(peers), **tables}


# ---------------------------------------------------------------- text


def format_row(row):
    """Format one row as a line of text."""
    cells = [f"{format_rung(row.rung):<22} {row.work:<14}"]
    if OURS in row.seconds:
        cells.append(f"{OURS} {milliseconds(row, OURS)} ms")
    cells += [f"{label(peer)} {median(ratios):.2f}" for peer, ratios in row.ratios.items()]
    return "   ".join(cells + row.remarks)


def format_tables(rows, setting, peers):
    """Format the report: a table per kind of work, the summary, LoRA's relative costs, memory, remarks and setup."""
    ratios = [["work", "peer", "geometric mean", "lowest", "at"]]
    for s in summary(rows, peers):
        lowest = [f"{s['lowest']:.2f}", format_rung(s["lowest_rung"])]
        ratios.append([s["work"], label(s["peer"]), f"{s['mean']:.2f}", *lowest])
    shares = [[RUNG, "work", "time", "predicted from FLOPs", "cached activations"]]
    shares += [[format_rung(s["rung"]), s["work"], *(f"{s[name]:.2f}" for name in COSTS)] for s in lora_shares(rows)]
    memory = [[RUNG, "work", OURS, *map(label, peers), f"{OURS}'s arrays"]]
    for row in (row for row in rows if any(row.peak_bytes.values())):
        sizes = [*(row.peak_bytes.get(name) for name in (OURS, *peers)), sum(row.counted_bytes.values())]
        memory.append([format_rung(row.rung), row.work, *(f"{size / 1e6:.0f}" if size else "–" for size in sizes)])
    blocks = [
        *(table(f"{work}: {text}", work_table(rows, work, peers)) for work, text in WORKS.items()),
        table(f"peer's time / {OURS}'s over the rungs (above 1: {OURS} is faster)", ratios),
        table(f"{OURS}'s LoRA step as a share of its full training step", shares),
        table(f"peak memory of each backend's process, and size of {OURS}'s arrays, in MB", memory),
        "\n".join(f"{format_rung(row.rung)} {row.work}: {remark}" for row in rows for remark in row.remarks),
        setting_lines(setting),
    ]
    return "\n\n".join(block for block in blocks if block)


def work_table(rows, work, peers):
    """Make the table for one kind of work: times, ratios with ranges, time per token, FLOPs, share of peak FLOP/s."""
    of_peers = [title for peer in peers for title in (f"{label(peer)} ms", "ratio (min–max)")]
    lines = [[RUNG, f"{OURS} ms", *of_peers, "µs/token", "GFLOP", "GFLOP/s", "of peak"]]
    for row in (row for row in rows if row.work == work and OURS in row.seconds):
        cells = [format_rung(row.rung), milliseconds(row, OURS)]
        for peer in peers:
            if ratios := row.ratios.get(peer):
                cells += [milliseconds(row, peer), f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"]
            else:
                cells += ["–", "–"]
        share = f"{100 * row.share_of_peak[OURS]:.0f} %" if row.share_of_peak else "–"
        each = 1e6 * median(row.seconds[OURS]) / tokens(row.rung, work)
        lines.append([*cells, f"{each:.4g}", f"{row.flops / 1e9:.4g}", f"{row.gflops[OURS]:.0f}", share])
    return lines


def setting_lines(setting):
    """Format the machine, the versions, and the user's environment variables that affect the times."""
    lines = ["{machine}, {cores} cores; {threads} threads, {rounds} rounds, {seconds:.0f} s in total".format(**setting)]
    for name, versions in setting["versions"].items():
        lines.append(f"{name}: " + ", ".join(map(" ".join, versions.items())))
    for key, title in (("environment", "set by the user"), ("not_passed_on", "set by the user, but removed")):
        if setting[key]:
            lines.append(f"{title}: " + ", ".join(map("=".join, setting[key].items())))
    return "\n".join(lines)


def label(peer):
    """Return the name that tables show for a peer; for another checkout, given as NAME=DIR, this is NAME."""
    return peer.partition("=")[0]


def milliseconds(row, name):
    return f"{1e3 * median(row.seconds[name]):.4g}"


def table(title, rows):
    """Format a title and right-aligned columns; the first row is the header. Return "" if there is only a header."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    header, *lines = ("  ".join(map(str.rjust, cells, widths)) for cells in rows)
    return "\n".join([title, header, "-" * len(header), *lines]) if lines else ""
