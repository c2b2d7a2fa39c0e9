"""Truncation: full fine-tuning's update cut to rank r, next to LoRA that was trained at rank r.

Every linear layer's update ΔW of full fine-tuning is cut to its r leading directions by a singular value
decomposition; embeddings, layer norms, biases and the head stay as trained. LoRA on all linear layers is trained at
the same ranks. The ranks that hold 90 % of an update's energy Σσ² are compared too, as means over the layers.
"""

import numpy as np

from ...adapters import Adapter, adapter_deltas
from ...analysis import linear_updates, spectrum, truncated_updates
from ...training import blas_threads
from ..drawing import COLOURS, band, log_axis, mean_line, new_figure, seeds_text
from ..evidence import EQUAL, check, differences
from ..methods import METHODS, by_method, tuned_runs
from ..runs.classify import load_snippets, score, starting_point

CLAIM = (
    "The change that fine-tuning makes has a low intrinsic rank (the hypothesis of Hu et al. 2021, section 4.1): cut "
    "to rank 16, the model is as good. But the rank that holds 90 % of the variance is 10 to 100 times LoRA's usual "
    "one (Biderman et al. 2024)."
)
CAPTION = (
    "Left: test accuracy of full fine-tuning with every ΔW cut to rank r, and of LoRA trained at rank r. Right: the "
    "share of ΔW's energy in its leading directions. An update may spread over many directions and need only a few."
)
RANKS = (1, 4, 16, 64)
USUAL = 16  # a change of a 256 × 256 matrix can have at most 16 times that rank
KEYS = ("full", *(f"all_r{r}" for r in RANKS))


def runs(seeds, quick):
    return tuned_runs(KEYS, seeds, quick)


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    loss = by_method(results, runs, "test_loss")
    cut = {r: {"accuracy": [], "loss": []} for r in (0, *RANKS)}
    energy = {key: [] for key in KEYS}  # (seeds, 256), mean over layers
    rank_90 = {key: [] for key in KEYS}
    for (key, _), run in runs.items():
        params, config, start = starting_point(run)
        trained = results.arrays(run)
        if start is None:
            updates = linear_updates(params, trained)
            with blas_threads(1):
                for r, model in truncated_updates(params, trained, cut):
                    scores = score(model, None, config, load_snippets(run.limit), "test")
                    cut[r]["accuracy"].append(100 * scores["accuracy"])
                    cut[r]["loss"].append(scores["loss"])
        else:
            updates = adapter_deltas(params, Adapter(start.config, trained))
        spectra = [spectrum(update) for update in updates.values()]
        shares = [np.cumsum(s.singular_values**2) / np.sum(s.singular_values**2) for s in spectra]
        energy[key].append(np.round(np.mean(shares, axis=0), 4).tolist())
        rank_90[key].append(float(np.mean([s.rank_90 for s in spectra])))

    def more(text, first, second):
        return check(f"{text}: test loss", differences(first, second), at_most=EQUAL, unit="nats")

    ratio = [rank / USUAL for rank in rank_90["full"]]
    checks = [
        more("full, cut to r = 16, less uncut", cut[16]["loss"], loss["full"]),
        check(f"rank of full's change at 90 % of its energy, to r = {USUAL}", ratio, at_least=10.0, unit="times"),
    ]
    asides = [more(f"LoRA r = {r} less full, cut to r = {r}", loss[f"all_r{r}"], cut[r]["loss"]) for r in RANKS]
    cut = {str(r): of_rank for r, of_rank in cut.items()}
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "cut": cut, "energy": energy, "rank_90": rank_90}


def draw(outcome):
    figure = new_figure(13, 5.2)
    left, right = figure.subplots(1, 2)
    accuracy, x = outcome["accuracy"], range(1, len(RANKS) + 1)
    cut = [outcome["cut"][str(r)]["accuracy"] for r in (0, *RANKS)]
    mean_line(left, range(len(cut)), cut, COLOURS["full"], "full fine-tuning, every ΔW cut to rank r", "s")
    lora = [accuracy[f"all_r{r}"] for r in RANKS]
    mean_line(left, x, lora, COLOURS["lora_all"], "LoRA on all linear layers, trained at rank r", "D")
    band(left, accuracy["full"], COLOURS["full"], "full fine-tuning, uncut")
    left.set_xticks(range(len(cut)), ["0", *(str(r) for r in RANKS)])
    left.set_xlabel("rank r (0: the base's linear layers)")
    left.set_ylabel("test accuracy in %")
    left.legend(loc="lower right", fontsize=11)
    styles = dict(zip(KEYS, ("-", ":", "-.", "--", (0, (5, 1)))))
    for key in KEYS:
        share, rank = 100 * np.mean(outcome["energy"][key], axis=0), np.mean(outcome["rank_90"][key])
        colour = COLOURS["full" if key == "full" else "lora_all"]
        right.plot(
            range(1, len(share) + 1), share, color=colour, linestyle=styles[key], linewidth=2,
            label=f"{METHODS[key].label}: 90 % in {rank:.0f}",
        )  # fmt: skip
    right.axhline(90, color="black", linewidth=0.8)
    log_axis(right, 2 ** np.arange(9), "leading directions")
    right.set_ylabel("share of ‖ΔW‖² in %")
    right.legend(loc="lower right", fontsize=11)
    title = "How many directions does the update have, and how many does it need?"
    figure.suptitle(f"{title} ({seeds_text(outcome)})", fontsize=14)
    return figure
