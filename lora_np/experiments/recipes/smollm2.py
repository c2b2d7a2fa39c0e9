"""A real language model as the base: what do the same methods reach on SmolLM2-135M-Instruct?

The base has 134.5 million parameters and was pretrained on two trillion tokens; its weights are those of a file in
Q4_1, expanded. It is taught Rotten Tomatoes' sentiment in one pass over 6,528 snippets in batches of 16: with a head
alone, with LoRA on all linear layers at rank 4, which trains less than 1 % of the parameters, and in full. Each rate is
the one with the lowest validation loss after a pass over a quarter of the snippets, from one other seed. Beside them is
what the model answers without training, with no and with 8 labelled snippets in its prompt, the small base after the
main job's training, and tf-idf.
"""

import numpy as np

from ...formats import read_json
from ...model import predict_logits
from ...training import attach, available_cores, blas_threads, shard_threads
from ..baseline import tfidf_on_test
from ..drawing import COLOURS, GREY, PALETTE, dots, mark_mean, panels
from ..evidence import ahead, check
from ..methods import METHODS, QUICK, SETTINGS, TUNE_SEEDS, by_method, lora, tuned_run
from ..runs.classify import ClassifyRun, load_snippets, starting_point
from ..runs.prompts import PromptRun

CLAIM = (
    "With fewer than 1 % of the parameters, LoRA adapts a real language model to nearly the accuracy of full "
    "fine-tuning (Hu et al. 2021), and far beyond what words alone tell."
)
CAPTION = (
    "Test accuracy on 1,000 snippets: every seed, and the mean with its interval. Compare training with prompting, the "
    "real base with the small one, and LoRA with full fine-tuning. Reviews like these may have been in the text that "
    "SmolLM2 was pretrained on."
)
QUARTER = 1632  # snippets, with which rates are chosen
PASSES = 3  # of the small base, as in the main job
METHOD = {"head": METHODS["head"].adapter, "lora": lora(4, "all-linear"), "full": None}
GUESSES = {"head": 2e-3, "lora": 5e-4, "full": 5e-5}
SERIES = {  # name -> what it is called, and its colour
    "shots_0": ("SmolLM2 as it is, no example", GREY),
    "shots_8": ("SmolLM2 as it is, 8 examples in the prompt", GREY),
    "small": ("small base, full fine-tuning", PALETTE[4]),
    "head": ("SmolLM2, head only", COLOURS["head"]),
    "lora": ("SmolLM2, LoRA on all linear layers, r=4", COLOURS["lora_all"]),
    "full": ("SmolLM2, full fine-tuning", COLOURS["full"]),
}


def runs(seeds, quick):
    """(name in SERIES, seed) -> run."""
    rates, grid = read_json(SETTINGS)["chosen"], {}
    more, limit = (QUICK, {"limit": QUICK["limit"]}) if quick else ({}, {})
    for seed in seeds:
        for key in ("full", "lora", "head"):  # the long ones first
            grid[key, seed] = run_of(key, seed, rates[f"smollm2, {key}"], keep=key == "lora", **more)
        grid["shots_8", seed] = PromptRun(8, seed, **limit)
        grid["small", seed] = tuned_run("full", seed, PASSES, keep=True, **limit)
    grid["shots_0", seeds[0]] = PromptRun(0, seeds[0], **limit)  # without examples the seed draws nothing
    return grid


def run_of(key, seed, rate, **more):
    """A training run on SmolLM2."""
    return ClassifyRun(METHOD[key], seed, rate, base="smollm2", batch_size=16, **more)


def measure(results, runs, seeds, quick):
    accuracy = by_method(results, runs, "test_accuracy", 100)
    baseline, words_right = tfidf_on_test(runs["lora", seeds[0]].limit)
    over_words = [value - 100 * baseline["test_accuracy"] for value in accuracy["lora"]]
    right = np.mean([right_on_test(results, runs["lora", seed]) for seed in seeds], axis=0)  # of each snippet
    of_snippets = np.round(100 * (right - words_right), 4).tolist()
    checks = [
        ahead("LoRA less full fine-tuning: test accuracy", accuracy, "lora", "full", by=-2.0),
        check("LoRA less tf-idf: test accuracy", over_words, at_least=8.0, unit="points"),
    ]
    asides = [
        check("LoRA less tf-idf: test accuracy, interval over snippets", of_snippets, at_least=8.0, unit="points"),
        check("LoRA: test accuracy", accuracy["lora"], at_least=85.5, unit="%"),
        ahead("LoRA less the small base: test accuracy", accuracy, "lora", "small", by=8.0),
        ahead("LoRA less 8 examples in the prompt: test accuracy", accuracy, "lora", "shots_8"),
    ]
    trained = {key: results[runs[key, seeds[0]]]["trainable"] for key in METHOD}
    shares = {key: results[runs[key, seeds[0]]]["percent"] for key in METHOD}
    rest = {"accuracy": accuracy, "trainable": trained, "percent": shares, "baseline": baseline}
    return {"checks": checks, "asides": asides, **rest}


def right_on_test(results, run):
    """Which of the N test snippets the model of a run gets right, (N,) bool."""
    params, config, adapter = starting_point(run)
    model, attached = attach(params, adapter, results.arrays(run))
    batches = load_snippets(run.limit, run.base).evaluation_batches("test")
    right = np.empty(sum(len(batch.rows) for batch in batches), dtype=bool)
    with blas_threads(1), shard_threads(available_cores()) as in_turn:
        answers = predict_logits(model, batches, config, attached, in_turn)
        for batch, (logits, targets) in zip(batches, answers):
            right[batch.rows] = logits.argmax(axis=-1) == targets
    return right


def draw(outcome):
    figure, axes = panels(outcome, "Sentiment of critics' snippets", 10, 5.2)
    labels = [
        f"{label}\n{outcome['trainable'][key]:,} parameters" if key in outcome["trainable"] else label
        for key, (label, _) in SERIES.items()
    ]
    colours = [colour for _, colour in SERIES.values()]
    dots(axes, labels, [outcome["accuracy"][key] for key in SERIES], colours, "test accuracy in %")
    words = 100 * outcome["baseline"]["test_accuracy"]
    mark_mean(axes, [words], COLOURS["tfidf"], f"tf-idf logistic regression, {words:.1f} %")
    axes.legend(loc="lower left")
    return figure


def table(outcome):
    """Rows of texts, the heads first."""
    rows = [["method", "trained", "%", "test accuracy %, each seed"]]
    for key, (label, _) in SERIES.items():
        trained, share = outcome["trainable"].get(key), outcome["percent"].get(key)
        cells = [f"{trained:,}", f"{share:.3f}"] if trained else ["", ""]
        rows.append([label, *cells, " ".join(f"{value:.1f}" for value in outcome["accuracy"][key])])
    return rows


def rates_to_tune():
    """Name in settings.json -> (the rate that is tried first, function rate -> the runs that judge it)."""

    def runs_at(key):
        return lambda rate: [run_of(key, TUNE_SEEDS[0], rate, examples=QUARTER, evaluations=1, test=False)]

    return {f"smollm2, {key}": (guess, runs_at(key)) for key, guess in GUESSES.items()}
