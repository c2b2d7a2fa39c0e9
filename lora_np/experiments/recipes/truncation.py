"""Truncation: full fine-tuning with its update truncated to rank r, and LoRA trained at rank r.

After full fine-tuning, the update ΔW of every linear layer is truncated to its r leading directions by a singular value
decomposition; the embeddings, layer norms, biases and head remain as trained. LoRA on all linear layers is trained at
the same ranks. The ranks that capture 90 % of the updates' energy Σσ², averaged over layers, are also compared.
"""

import numpy as np

from ..drawing import STYLES, colour, draw_truncated, log_axis, panels
from ..evidence import as_good, check
from ..methods import METHODS, by_method, ranks_of
from ..updates import energy, scores_when_cut

CLAIM = """The updates of full fine-tuning have a low intrinsic rank (the hypothesis of Hu et al. 2021, section 4.1):
with the updates truncated to rank 16, the model is as good as without truncation. But the rank that captures 90 % of an
update's energy is 10 to 100 times LoRA's usual rank (Biderman et al. 2024)."""
CAPTION = """Left panel: test accuracy of full fine-tuning with every ΔW truncated to rank r, and of LoRA trained at
rank r. Right panel: the share of ΔW's energy in its leading directions. An update may be spread over many directions,
of which only a few are needed."""
USUAL = 16  # LoRA's usual rank; the rank of a 256 × 256 matrix's update is at most 16 times as high
KEYS = {
    "pretrained": ("full", "all_r1", "all_r4", "all_r16", "all_r64"),
    "smollm2": ("full", "all_r1", "all_r4", "all_r16"),
}


def measure(results, runs, seeds, quick):
    accuracy, loss = by_method(results, runs, "test_accuracy", 100), by_method(results, runs, "test_loss")
    ranks = ranks_of(loss, "all")
    cut = scores_when_cut(results, [runs["full", seed] for seed in seeds], (0, *ranks))
    energies = by_method(results, runs, lambda run: results.measured(energy, run))
    shares, rank_90 = (
        {key: [of_run[name] for of_run in of_key] for key, of_key in energies.items()} for name in ("shares", "rank_90")
    )
    losses = loss | {f"cut_r{r}": scores["loss"] for r, scores in cut.items()}
    text = f"(rank that captures 90 % of the energy of full fine-tuning's ΔW) / {USUAL}"
    checks = [
        as_good("full fine-tuning truncated to r = 16 − full fine-tuning: test loss", losses, "cut_r16", "full"),
        check(text, np.divide(rank_90["full"], USUAL), at_least=10.0, unit="times"),
    ]
    text = "LoRA r = {0} − full fine-tuning truncated to r = {0}: test loss"
    asides = [as_good(text.format(r), losses, f"all_r{r}", f"cut_r{r}") for r in ranks]
    return {"checks": checks, "asides": asides, "accuracy": accuracy, "cut": cut, "energy": shares, "rank_90": rank_90}


def draw(outcome):
    title = "How many directions does the update have, and how many does it need?"
    figure, (left, right) = panels(outcome, title, 13, 5.2, 2)
    accuracy, cut = outcome["accuracy"], {r: scores["accuracy"] for r, scores in outcome["cut"].items()}
    lora = {str(r): accuracy[f"all_r{r}"] for r in ranks_of(accuracy, "all")}
    name = "lora_all", "LoRA on all linear layers, trained at that rank", "D"
    draw_truncated(left, cut, accuracy["full"], lora, name)
    for (key, shares), style in zip(outcome["energy"].items(), STYLES):
        share, rank = 100 * np.mean(shares, axis=0), np.mean(outcome["rank_90"][key])
        label = f"{METHODS[key].label}: 90 % in {rank:.0f}"
        right.plot(range(1, len(share) + 1), share, color=colour(key), linestyle=style, linewidth=2, label=label)
    right.axhline(90, color="black", linewidth=0.8)
    log_axis(right, 2 ** np.arange(int(np.log2(len(share))) + 1), "leading directions")
    right.set_ylabel("share of ‖ΔW‖² in %")
    right.legend(loc="lower right")
    return figure
