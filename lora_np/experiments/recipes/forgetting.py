"""What makes a language model forget: the method, the learning rate, or the distance that its weights move?

SmolLM2 is fine-tuned on 32,768 tokens of critics' snippets by three methods, each at several learning rates: full
fine-tuning, LoRA of rank 16 on all linear layers, and LoRA of rank 16 on q and v. At a higher rate, a model learns more
and forgets more, so the methods are compared at equal loss on the new domain: for each seed, the lowest loss that all
methods reach. Each method's loss on the old texts (IMDb reviews) at that point is interpolated between runs at
successive rates, with the base as the run at rate 0. The distance that the weights move is ‖ΔW‖ / ‖W‖ over all linear
layers."""

import numpy as np

from ..design import Design, Recipe, ratio
from ..drawing import COLOURS, MARKERS, OTHERS, legend_below, panels
from ..evidence import mean_ratio, minus
from ..tables import at_level, by_method
from . import dialect

RATES = {
    "full": (2.5e-5, 5e-5, 1e-4, 2e-4),
    "lora_r16": (2.5e-4, 5e-4, 1e-3, 2e-3),
    "lora_r16_qv": (1e-3, 2e-3, 4e-3, 8e-3),
}
LABELS = {
    "full": ("full fine-tuning", COLOURS["full"], MARKERS["full"]),
    "lora_r16": ("LoRA r=16, all linear layers", COLOURS["lora_all"], MARKERS["lora_all"]),
    "lora_r16_qv": ("LoRA r=16, q and v", COLOURS["lora_qv"], MARKERS["lora_qv"]),
}
ON_SMOLLM2 = {"base": "smollm2", "batch_size": 4, "evaluations": 3, "train_tokens": 32768, "limit": 12288}
FIELDS = {
    "new": "loss on critics' snippets (new), nats per token",
    "old": "loss on reviews (old), nats per token",
    "moved": "distance moved, ‖ΔW‖ / ‖W‖",
}


def runs(seeds, quick, base="smollm2"):
    """A dict, (method, rate, seed) -> run."""
    more = ON_SMOLLM2 | (dialect.QUICK if quick else {})
    return {
        (method, rate, seed): dialect.run_of("critics", method, seed, rate, **more)
        for method, rates in RATES.items()
        for rate in (rates[::2] if quick else rates)
        for seed in seeds
    }


def measure(results, runs, seeds, quick):
    first, tables = next(iter(runs.values())), {name: by_method(results, runs, name) for name in FIELDS}
    start = {"new": dialect.base_loss(first, "critics"), "old": dialect.base_loss(first, "reviews"), "moved": 0.0}
    # Method -> FIELDS -> rates -> one value per seed.
    return {"start": start, "paths": {method: {name: tables[name][method] for name in FIELDS} for method in RATES}}


def at_equal_loss(outcome, field):
    """Interpolate a field to the point of equal loss on the new domain; return a dict, method -> one value per seed."""
    start, values = outcome["start"], {method: [] for method in outcome["paths"]}
    for i in range(len(outcome["seeds"])):
        of_seed = {
            method: {name: [start[name], *(of[i] for of in path[name].values())] for name in FIELDS}
            for method, path in outcome["paths"].items()
        }
        lowest = {method: min(path["new"]) for method, path in of_seed.items()}
        last = max(lowest, key=lowest.get)
        if lowest[last] >= start["new"]:
            raise ValueError(f"{last} does not learn the new domain at any rate")
        for method, path in of_seed.items():
            values[method].append(at_level(path, field, "new", lowest[last]))
    return values


def conclude(outcome):
    old, moved = (at_equal_loss(outcome, name) for name in ("old", "moved"))
    text = "at equal loss on the new domain, "
    few = Design(f"{text}LoRA q,v r=16 − LoRA all linear r=16: loss on reviews", 0.02, "nats")
    far = ratio(f"{text}LoRA all linear r=16 / full fine-tuning: distance moved")
    ratios = np.divide(moved["lora_r16"], moved["full"])
    means = {method: np.mean(np.subtract(of, outcome["start"]["old"])) for method, of in old.items()}
    rise = {method: minus(mean, "+.3f") for method, mean in means.items()}
    none = ", so none has forgotten anything yet" * bool(max(means.values()) < 0)
    finding = (
        f"Where all methods have learned the snippets equally well, the loss on reviews has changed by "
        f"{rise['full']} nats with full fine-tuning, {rise['lora_r16']} with LoRA on all linear layers and "
        f"{rise['lora_r16_qv']} with LoRA on q and v{none}; LoRA on all layers has moved the weights "
        f"{mean_ratio(ratios):.2g} times as far as full fine-tuning."
    )
    others = [(few, np.subtract(old["lora_r16_qv"], old["lora_r16"])), (far, ratios)]
    return np.subtract(old["lora_r16"], old["full"]), others, finding


def draw(outcome):
    figure, (left, right) = panels(
        outcome, "What SmolLM2 learns and what it forgets", 13, 5.4, 2, marks="mean", sharey=True
    )
    draw_paths(left, outcome, "new")
    draw_paths(right, outcome, "moved")
    right.set(ylabel="")
    legend_below(figure, left, 4)
    return figure


def draw_paths(axes, outcome, field, methods=tuple(RATES)):
    """Draw the loss on old texts against a field, from the base along the rates: the mean over seeds, and each seed."""
    start = outcome["start"]
    for method in methods:
        (label, shade, marker), path = LABELS[method], outcome["paths"][method]
        means = [[start[name], *(np.mean(of) for of in path[name].values())] for name in (field, "old")]
        axes.plot(*means, marker + "-", color=shade, label=label, linewidth=1.8, markersize=7)
        seeds = [np.ravel(list(path[name].values())) for name in (field, "old")]
        axes.plot(*seeds, marker, color=shade, alpha=0.3, markersize=5, markeredgewidth=0)
    axes.plot(start[field], start["old"], "*", color=COLOURS["base"], markersize=15, label="the base")
    axes.axhline(start["old"], color=OTHERS[3], linestyle=":", linewidth=1)
    axes.set(xlabel=FIELDS[field], ylabel=FIELDS["old"])


RECIPE = Recipe(
    claim="""LoRA learns less and forgets less than full fine-tuning (Biderman et al. 2024). In the paper, the
    length of the training varies; here, the learning rate does, and the methods are compared at equal loss. The claim
    says nothing about methods that have learned equally well, so the result can neither agree with it nor contradict
    it.""",
    design=Design(
        "at equal loss on the new domain, LoRA all linear r=16 − full fine-tuning: loss on reviews", 0.02, "nats"
    ),
    bases=("smollm2",),
    limits="""The base is the first point of each line, so that a method whose lowest rate already reaches the common
    loss is interpolated from the base. All seeds have the same test texts.""",
    caption="""Loss on the old texts against the loss on the new ones (left) and against the distance that the weights
    moved (right), from the base (the star) along growing learning rates. Small markers are single seeds. Left panel:
    compare the lines where they have the same loss on the new texts. Right panel: if the distance alone decided, the
    lines would coincide.""",
)
