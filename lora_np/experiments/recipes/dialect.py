"""A dialect without forgetting: what a language model gains in a new domain, and what it loses in its old one.

The base has read long IMDb reviews. It is taught the dialect of critics' snippets in one pass, and that of software
licences, of which there are six times fewer, in three, by full fine-tuning and by LoRA on all linear layers. Its
perplexity is measured during training and at the end, on texts of the new domain and on IMDb reviews, neither seen in
training. An adapter can be taken off again. The base is then what it was, bit for bit, and every run of LoRA checks
this. The learning rates were chosen on the new domain's validation texts. Full fine-tuning at half of its rate shows
how much of the forgetting comes from the rate.
"""

import numpy as np

from ...formats import read_json, shipped_adapters, write_text
from ...model import Sampling
from ...tasks.adapter_set import BASE, load_adapter_set
from ...tasks.writing import write_text_from
from ...training import blas_threads, language_loss
from ..drawing import COLOURS, PALETTE, legend_below, new_figure
from ..evidence import check, differences
from ..methods import SETTINGS, TUNE_SEED, rate_name
from ..runs import load_base
from ..runs.dialect import OLD, DialectRun, label, licences_digest, load_domain

CLAIM = "LoRA learns less and forgets less than full fine-tuning (Biderman et al. 2024)."
CAPTION = (
    "Perplexity in the new domain against perplexity on film reviews, the old one; lower and further left is better. "
    "Top: at the end, on test texts. Bottom: during training, from right to left, on validation texts. LoRA forgets "
    "only while the adapter is on; without it the model is back at the star. How much is forgotten also depends on the "
    "learning rate: compare full fine-tuning at its best rate for the new domain with half of that rate."
)
DOMAINS = {"critics": "critics' snippets", "licences": "software licences"}
TAUGHT = {"pretrained": {"critics": 1, "licences": 3}, "smollm2": {"critics": 1}}  # base -> domain -> passes
ON_BASE = {  # other fields of a base's runs
    "pretrained": {},
    "smollm2": {"base": "smollm2", "batch_size": 4, "evaluations": 3, "train_tokens": 32768, "limit": 12288},
}
SERIES = {  # name -> what it is called, method, share of the chosen rate, colour and marker
    "full": (label("full"), "full", 1.0, COLOURS["full"], "s"),
    "full_half": (label("full") + ", half the rate", "full", 0.5, PALETTE[4], "s"),
    "lora_r1": (label("lora_r1"), "lora_r1", 1.0, PALETTE[1], "o"),
    "lora_r16": (label("lora_r16"), "lora_r16", 1.0, PALETTE[2], "o"),
}
QUICK_SERIES, QUICK = ("full", "full_half", "lora_r16"), {"limit": 512, "train_tokens": None}
PROMPTS = ("the film", "you may not", "this is a", "in no event", "the actors")
SAMPLING = Sampling(temperature=0.8, top_k=40, repetition_penalty=1.2)
SAMPLE_TOKENS = 40
GUESSES = {
    "critics, full": 8e-4,
    "critics, lora_r1": 1.6e-2,
    "critics, lora_r16": 8e-3,
    "licences, full": 3.2e-3,
    "licences, lora_r1": 3.2e-2,
    "licences, lora_r16": 1.6e-2,
    "smollm2, critics, full": 1e-4,
    "smollm2, critics, lora_r1": 4e-3,
    "smollm2, critics, lora_r16": 1e-3,
}


def runs(seeds, quick, base="pretrained"):
    """(domain, name in SERIES, seed) -> run."""
    rates, more = read_json(SETTINGS)["chosen"], QUICK if quick else {}
    grid = {}
    for seed in seeds:
        for domain in TAUGHT[base]:
            for name, (_, method, share, *_) in SERIES.items():  # full fine-tuning, the longest, first
                if not quick or name in QUICK_SERIES:
                    rate = share * rates[rate_name(f"{domain}, {method}", base=base)]
                    grid[domain, name, seed] = run_of(base, domain, method, seed, rate, **more)
    return grid


def run_of(base, domain, method, seed, rate, **more):
    """A run with its domain's passes, and with a digest of texts that are not the same on every machine."""
    corpus = licences_digest() if "licences" in (domain, *OLD[base]) else ""
    return DialectRun(domain, method, seed, rate, TAUGHT[base][domain], corpus, **ON_BASE[base] | more)


def measure(results, runs, seeds, quick):
    base, config = load_base()
    limit = QUICK["limit"] if quick else None
    with blas_threads(1):
        of_base = {name: language_loss(base, config, load_domain(name, limit).test) for name in (*DOMAINS, "reviews")}
    losses = {domain: {} for domain in DOMAINS}  # domain -> name in SERIES -> losses in nats a token, one a seed
    for (domain, name, _), run in runs.items():
        numbers, of = results[run], losses[domain].setdefault(name, {"new": [], "old": [], "way": []})
        of["new"].append(numbers["new"])
        of["old"].append(numbers["old"])
        of["way"].append([numbers["history"]["eval_loss"], numbers["history"]["eval_old"]])
    checks, asides, more = [], [], {"at_least": 0.0, "unit": "nats"}
    for domain, of in losses.items():
        for lora in (name for name in of if name.startswith("lora")):
            for full, parts in (("full", checks), ("full_half", asides)):
                names = f"{DOMAINS[domain]}, {SERIES[lora][0]} and {SERIES[full][0]}"
                learnt = differences(of[lora]["new"], of[full]["new"])
                forgotten = differences(of[full]["old"], of[lora]["old"])
                parts.append(check(f"{names}: LoRA's loss in the new domain less full's", learnt, **more))
                parts.append(check(f"{names}: full's loss on reviews less LoRA's", forgotten, **more))
    adapted = [results[run] for run in runs.values() if run.method != "full"]
    taken_off = [numbers["removed_bit_for_bit"] and numbers["base_untouched"] for numbers in adapted]
    text = "runs whose adapter, taken off, leaves the base bit for bit"
    asides.append(check(text, taken_off, at_least=1.0, every=True))
    texts = {"licences_sha256": licences_digest(), "samples": samples()}
    return {"checks": checks, "asides": asides, "base": of_base, "losses": losses, **texts}


def samples():
    """Continuations of a few prompts by the base and by each shipped adapter, from the same random numbers."""
    loaded = load_adapter_set([BASE, *shipped_adapters()])
    texts = {name: [] for name in loaded.adapters}
    for name, adapter in loaded.adapters.items():
        for number, prompt in enumerate(PROMPTS):
            given = loaded.task, prompt, SAMPLE_TOKENS, adapter, SAMPLING, np.random.default_rng(number)
            texts[name].append("".join(write_text_from(*given)))
    return {"prompts": list(PROMPTS), "texts": texts}


def write_more(outcome, folder):
    """The samples, as a page of their own."""
    prompts, texts = outcome["samples"]["prompts"], outcome["samples"]["texts"]
    temperature, top_k, penalty = SAMPLING.temperature, SAMPLING.top_k, SAMPLING.repetition_penalty
    page = f"""\
# One model, three voices

Written by `python -m lora_np experiment dialect`: each prompt continued by the base, which has read film
reviews, and by the base with each adapter that comes with the package. Temperature {temperature:g}, top-k {top_k},
repetition penalty {penalty:g}, at most {SAMPLE_TOKENS} tokens, the same random numbers in each column; nothing was \
picked by hand.

| {" | ".join(texts)} |
|{"---|" * len(texts)}
"""
    for prompt, *continued in zip(prompts, *texts.values()):
        cells = (f"**{prompt}**" + text.replace("|", "\\|").removeprefix(prompt) for text in continued)
        page += f"| {' | '.join(cells)} |\n"
    write_text(folder / "dialect_samples.md", page)


def draw(outcome):
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(13, 11)
    panels = figure.subplots(2, len(DOMAINS))
    old_base = np.exp(outcome["base"]["reviews"])
    for column, (domain, title) in zip(panels.T, DOMAINS.items()):
        for name, of in outcome["losses"][domain].items():
            text, _, _, colour, marker = SERIES[name]
            new, old = np.exp(of["new"]), np.exp(of["old"])
            column[0].plot(new, old, marker, color=colour, alpha=0.35, markersize=6, markeredgewidth=0)
            column[0].plot(new.mean(), old.mean(), marker, color=colour, markersize=11, label=text)
            way = np.exp(np.mean(of["way"], axis=0))  # (2, evaluations)
            column[1].plot(*way, marker + "-", color=colour, markersize=6, linewidth=1.8)
        star = {"color": "black", "markersize": 17, "label": "base; adapter taken off again"}
        column[0].plot(np.exp(outcome["base"][domain]), old_base, "*", **star)
        column[0].axhline(old_base, color="black", linestyle=":", linewidth=1.2)
        column[0].set_title(title)
        for axes, split in zip(column, ("test", "validation")):
            axes.set(xscale="log", yscale="log", xlabel=f"perplexity on {title}, {split} texts")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
                axis.set_ticks([], minor=True)
                axis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes, when in zip(panels[:, 0], ("at the end, test", "during training, validation")):
        axes.set_ylabel(f"perplexity on film reviews ({when})")
    legend_below(figure, panels[0, 0], 5)
    n = len(outcome["seeds"])
    marks = "one seed" if n == 1 else f"large: mean over {n} seeds; small: each seed"
    figure.suptitle(f"What is learnt and what is forgotten: lower and further left is better\n({marks})", fontsize=14)
    return figure


def rates_to_tune():
    """Name in settings.json -> (the rate that is tried first, function rate -> the runs that judge it)."""

    def runs_at(name):
        *base, domain, method = name.split(", ")
        return lambda rate: [run_of(*base or ["pretrained"], domain, method, TUNE_SEED, rate, test=False)]

    return {name: (guess, runs_at(name)) for name, guess in GUESSES.items()}
