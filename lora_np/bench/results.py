"""What was measured on one rung and kind of work, and what the times say."""

from statistics import geometric_mean, median
from typing import NamedTuple

from .ours import PEAK_FLOPS
from .rungs import ADAPTERS, WORKS, Rung, flops
from .sides import OURS

QUIET = 1.15  # the largest `peak_spread` of a quiet machine


class Row(NamedTuple):
    """One rung and kind of work."""

    rung: Rung
    work: str
    flops: int
    activation_bytes: int | None  # lora_np's
    seconds: dict  # side -> list of its median seconds, one a round
    notes: dict  # side -> why it has no time
    agreement: dict  # peer -> Agreement
    ratios: dict  # peer -> list of its seconds over lora_np's, one a round: above 1, lora_np is faster
    gflops: dict  # side -> billions of floating-point operations a second, of those that `flops` counts
    share_of_peak: dict  # side -> its gflops over what this machine reaches on one large product; {} without a peak
    peak_spread: float | None  # slowest round of the peak over its fastest: 1 to 1.1 on an otherwise idle machine

    @property
    def failed(self):
        """Whether lora_np has no time or a peer disagrees; a peer that is missing is no failure."""
        return OURS in self.notes or any(agreement.problem for agreement in self.agreement.values())

    @property
    def disturbed(self):
        """Whether something else ran on the machine meanwhile.

        Other programs slow a side whose threads spin while they wait, as OpenMP's do, far more than one whose threads
        sleep, so ratios from a busy machine say little.
        """
        return (self.peak_spread or 1.0) > QUIET


def make_row(rung, work, seconds, agreement, notes, activation_bytes):
    """The Row of what was measured."""
    counted = flops(rung, work)
    compared = [peer for peer in agreement if {peer, OURS} <= set(seconds)]
    ratios = {peer: [theirs / ours for theirs, ours in zip(seconds[peer], seconds[OURS])] for peer in compared}
    done = {name: PEAK_FLOPS if name == "peak" else counted for name in seconds}
    gflops = {name: done[name] / median(times) / 1e9 for name, times in seconds.items()}
    shares, spread = {}, None
    if "peak" in seconds:
        shares = {name: speed / gflops["peak"] for name, speed in gflops.items()}
        spread = max(seconds["peak"]) / min(seconds["peak"])
    return Row(rung, work, counted, activation_bytes, seconds, notes, agreement, ratios, gflops, shares, spread)


def summary(rows, peers):
    """Geometric mean and lowest of the median ratios over the rungs, by kind of work and peer.

    Returns
    -------
    list of dicts: "work", "peer", "rungs" (how many), "mean", "lowest", "lowest_rung"
    """
    lines = []
    for work in WORKS:
        for peer in peers:
            middle = {row.rung: median(row.ratios[peer]) for row in rows if row.work == work and peer in row.ratios}
            if middle:
                lowest = min(middle, key=middle.get)
                line = {"work": work, "peer": peer, "rungs": len(middle), "mean": geometric_mean(middle.values())}
                lines.append(line | {"lowest": middle[lowest], "lowest_rung": list(lowest)})
    return lines


def lora_shares(rows):
    """What a LoRA step costs, as a share of the full step on the same rung.

    Returns
    -------
    list of dicts: "rung", "work"; "time" measured, "flops" predicted, "activation_bytes" held, each as a share
    """
    costs = {
        (row.rung, row.work): {
            "time": median(row.seconds[OURS]), "flops": row.flops, "activation_bytes": row.activation_bytes
        }
        for row in rows
        if OURS in row.seconds
    }  # fmt: skip
    return [
        {"rung": list(rung), "work": work} | {name: cost[name] / costs[rung, "full"][name] for name in cost}
        for (rung, work), cost in costs.items()
        if work in ADAPTERS and (rung, "full") in costs
    ]
