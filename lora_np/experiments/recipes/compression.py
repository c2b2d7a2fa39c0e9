"""Quantised and pruned bases, with LoRA and without.

The linear layers of the base are put in NF4 (blocks of 64, double quantisation) or int8 (a scale a row), or pruned by
magnitude, half of all weights or two of every four in a row. That base is frozen, and a head alone, or a head and LoRA
on all linear layers at r = 16, is trained on it. LoftQ is LoRA whose start makes up for what NF4 loses. In the end LoRA
is merged back into its NF4 base, which rounds again.
"""

from ...adapters import Adapter, merge_in_format
from ...compress import held_bytes
from ...training import blas_threads
from ..drawing import PALETTE, dots, new_figure, seeds_text
from ..evidence import check
from ..runs.classify import BASES, score, starting_point
from ..runs.sentiment import load_task
from ..tuned import differences, tuned_runs

CLAIM = (
    "LoRA on a base in NF4 does what it does on the base itself (Dettmers et al. 2023, QLoRA), and makes up for "
    "pruning too; LoftQ's start is ahead of plain NF4 (Li et al. 2023)."
)
CAPTION = (
    "Test accuracy of a head alone and of LoRA on each base, with the bytes of the base's linear layers. Look at how "
    "far LoRA brings every base to the uncompressed one's line, and at what merging back into NF4 keeps."
)
LORA, LOFTQ = "all_r16", "loftq"


def grid(seeds, quick):
    """(base, method, seed) -> run."""
    found = {
        (base, key, seed): run
        for base in BASES
        for (key, seed), run in tuned_runs(("head", LORA), seeds, quick, base=base).items()
    }
    return found | {("nf4", key, seed): run for (key, seed), run in tuned_runs([LOFTQ], seeds, quick).items()}


def runs(seeds, quick):
    return list(grid(seeds, quick).values())


def measure(results, seeds, quick):
    accuracy, held, merged = {}, {}, {"accuracy": [], "update_lost": []}
    for (base, key, _), run in grid(seeds, quick).items():
        accuracy.setdefault(f"{base}, {key}", []).append(100 * results[run]["test_accuracy"])
        params, config, start = starting_point(run)
        held[base] = held_bytes({name: array for name, array in params.items() if name.endswith("_proj.weight")})
        if base == "nf4" and key == LORA:
            back = merge_in_format(params, Adapter(start.config, results.arrays(run)))
            with blas_threads(1):
                found = score(back.params, None, config, load_task(run.limit), "test")
            merged["accuracy"].append(100 * found["accuracy"])
            merged["update_lost"].append(back.overall.update)
    dense, nf4 = accuracy[f"dense, {LORA}"], accuracy[f"nf4, {LORA}"]
    parts = [check("NF4 and LoRA less dense and LoRA", differences(nf4, dense), at_least=-1.0, unit="points")]
    for base in ("pruned 50 %", "pruned 2:4"):
        less = differences(accuracy[f"{base}, {LORA}"], dense)
        parts.append(check(f"{base} and LoRA less dense and LoRA", less, at_least=-1.0, unit="points"))
    parts.append(check("LoftQ less NF4 and LoRA", differences(accuracy[f"nf4, {LOFTQ}"], nf4), 0.0, unit="points"))
    return {"checks": parts, "accuracy": accuracy, "linear_bytes": held, "merged_back": merged}


def draw(outcome):
    figure = new_figure(10, 6.2)
    axes = figure.subplots()
    accuracy, held = outcome["accuracy"], outcome["linear_bytes"]
    rows = []
    for base in BASES:
        name = f"{base} ({held[base] / 1e6:.2f} MB)"
        rows.append((f"{name}, head only", accuracy[f"{base}, head"], PALETTE[3]))
        rows.append((f"{name}, LoRA", accuracy[f"{base}, {LORA}"], PALETTE[2]))
        if base == "nf4":
            rows.append((f"{name}, LoftQ", accuracy[f"nf4, {LOFTQ}"], PALETTE[0]))
            rows.append((f"{name}, LoRA merged back", outcome["merged_back"]["accuracy"], PALETTE[1]))
    dots(axes, *zip(*rows), "test accuracy in %")
    dense = accuracy[f"dense, {LORA}"]
    axes.axvline(sum(dense) / len(dense), color=PALETTE[2], linestyle="--", linewidth=1)
    axes.set_title(f"LoRA on compressed bases ({seeds_text(outcome)})")
    return figure
