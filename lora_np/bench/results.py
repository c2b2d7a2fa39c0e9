"""What was measured on one rung and kind of work, and what the times say."""

from math import exp, log
from statistics import fmean, median
from typing import NamedTuple

from .ours import PEAK_FLOPS
from .rungs import TARGETS, Rung
from .sides import OURS

QUIET = 1.15  # the largest `peak_spread` of a quiet machine


class Row(NamedTuple):
    """One rung and kind of work."""

    rung: Rung
    work: str
    flops: int
    seconds: dict  # side -> list of its median seconds, one a round
    agreements: dict  # peer -> Agreement
    notes: dict  # side -> why it has no time
    activation_bytes: int | None

    @property
    def failed(self):
        """Whether lora_np has no time or a peer disagrees; a peer that is missing is no failure."""
        return OURS in self.notes or any(agreement.problem for agreement in self.agreements.values())

    @property
    def time(self):
        """lora_np's median seconds."""
        return median(self.seconds[OURS])


def ratios(row, peer):
    """The peer's time over lora_np's, round by round: above 1, lora_np is faster."""
    return [theirs / ours for theirs, ours in zip(row.seconds[peer], row.seconds[OURS])]


def gflops(row, name=OURS):
    """Billions of floating-point operations a second, of those that `flops` counts."""
    return (PEAK_FLOPS if name == "peak" else row.flops) / median(row.seconds[name]) / 1e9


def share_of_peak(row, name=OURS):
    """A side's operations a second as a share of what this machine reaches on one large product."""
    return gflops(row, name) / gflops(row, "peak") if "peak" in row.seconds else None


def peak_spread(row):
    """The slowest round of the peak over its fastest: 1 to 1.1 on an otherwise idle machine.

    Other programs slow a side whose threads spin while they wait, as OpenMP's do, far more than one whose threads
    sleep, so ratios from a busy machine say little.
    """
    return max(row.seconds["peak"]) / min(row.seconds["peak"]) if "peak" in row.seconds else None


def disturbed(row):
    """Whether something else ran on the machine meanwhile."""
    return (peak_spread(row) or 1.0) > QUIET


def timed(rows, work, *names):
    """The rows of one kind of work in which all these sides have a time."""
    return [row for row in rows if row.work == work and all(name in row.seconds for name in names)]


def summary(rows, works, peers):
    """Geometric mean and lowest of the median ratios over the rungs, by kind of work and peer.

    Returns
    -------
    list of dicts: "work", "peer", "rungs" (how many), "mean", "lowest", "lowest_rung"
    """
    lines = []
    for work in works:
        for peer in peers:
            middle = {row.rung: median(ratios(row, peer)) for row in timed(rows, work, OURS, peer)}
            if middle:
                lowest = min(middle, key=middle.get)
                line = {"work": work, "peer": peer, "rungs": len(middle)}
                line["mean"] = exp(fmean(log(ratio) for ratio in middle.values()))
                lines.append(line | {"lowest": middle[lowest], "lowest_rung": list(lowest)})
    return lines


def lora_shares(rows):
    """What a LoRA step costs, as a share of the full step on the same rung.

    Returns
    -------
    list of dicts: "rung", "work"; "time" measured, "flops" predicted, "activation_bytes" held, each as a share
    """
    full = {row.rung: row for row in timed(rows, "full", OURS)}
    measures = ("time", "flops", "activation_bytes")
    return [
        {"rung": list(row.rung), "work": row.work}
        | {measure: getattr(row, measure) / getattr(full[row.rung], measure) for measure in measures}
        for row in rows
        if row.work in TARGETS and row.rung in full and OURS in row.seconds
    ]
