"""What does a language model lose in its old domain when it learns a dialect?

The small base was trained on long IMDb reviews. It is fine-tuned, in full and with LoRA on all linear layers, on
one of two new domains: on critics' snippets for one epoch, or on software licences, which have a sixth as many tokens,
for three epochs. Perplexity is measured on held-out texts of the new domain and on IMDb reviews. Every LoRA run also
checks that removing the adapter restores the base bit for bit. The learning rates were chosen on the new domain's
validation texts. Both methods are also run at half their learning rate, to show how forgetting depends on the rate.
"""

from itertools import product

import numpy as np

from ...formats import shipped_adapters
from ...model import Sampling
from ...tasks.adapter_set import BASE, load_adapter_set
from ...tasks.pictures import new_figure
from ...tasks.writing import write_text_from
from ...training import blas_threads, language_loss, worthwhile_threads
from ..design import Design, Recipe
from ..drawing import COLOURS, MARKERS, legend_below, plain_numbers
from ..methods import tuned
from ..runs import load_base
from ..runs.dialect import LENGTH, DialectRun, licences_digest, load_domain
from ..tables import by_method, gathered

DOMAINS = {"critics": "critics' snippets", "licences": "software licences"}
EPOCHS = {"critics": 1, "licences": 3}
SERIES = {  # name -> label, method, factor of the chosen rate, colour and marker; the longest runs first
    "full": ("full fine-tuning", "full", 1.0, COLOURS["full"], MARKERS["full"]),
    "full_half": ("full fine-tuning, half the rate", "full", 0.5, COLOURS["full"], "X"),
    "lora_r16": ("LoRA all linear r=16", "lora_r16", 1.0, COLOURS["lora_all"], MARKERS["lora_all"]),
    "lora_half": ("LoRA all linear r=16, half the rate", "lora_r16", 0.5, COLOURS["lora_all"], "X"),
}
COMPARED = ("old", "reviews", "less"), ("new", "the new domain", "more")  # loss, its texts, what the claim expects
QUICK = {"limit": 512, "train_tokens": None}
PROMPTS = "the film", "you may not", "this is a", "in no event", "the actors"
SAMPLING = Sampling(temperature=0.8, top_k=40, repetition_penalty=1.2)
SAMPLE_TOKENS = 40


def runs(seeds, quick, base="pretrained"):
    """A dict, (domain, name in SERIES, seed) -> run."""
    grid, more = {}, QUICK if quick else {}
    for seed, domain, name in product(seeds, DOMAINS, SERIES):
        _, method, factor, *_ = SERIES[name]
        rate = factor * tuned(f"{domain}, {method}")
        grid[domain, name, seed] = run_of(domain, method, seed, rate, **more)
    return grid


def run_of(domain, method, seed, rate, **more):
    """A DialectRun with its domain's number of epochs and, for licences, a digest of this machine's licence texts."""
    corpus = licences_digest() if domain == "licences" else ""
    return DialectRun(domain, method, seed, rate, EPOCHS[domain], corpus, **more)


def measure(results, runs, seeds, quick):
    first = next(iter(runs.values()))
    rows = by_method(results, runs, lambda run: {field: results[run][field] for field in ("new", "old")})
    adapted = [results[run] for run in runs.values() if run.method != "full"]
    return {
        "base_losses": {name: base_loss(first, name) for name in (*DOMAINS, "reviews")},
        # Domain -> name in SERIES -> "new" or "old" -> losses in nats per token, one per seed.
        "losses": {domain: {name: gathered(of) for name, of in of_names.items()} for domain, of_names in rows.items()},
        "restored": [numbers["removed_bit_for_bit"] and numbers["base_untouched"] for numbers in adapted],
        "licences_sha256": licences_digest(),
        "samples": samples(),
    }


def base_loss(run, domain):
    """The loss of a run's base on the test texts of a domain, in nats per token."""
    params, config, *_ = load_base(run.base)
    tokens = load_domain(domain, run.base, run.limit).test
    with blas_threads(1):
        return language_loss(params, config, tokens, length=LENGTH, threads=worthwhile_threads(params))


def conclude(outcome):
    losses, others = outcome["losses"], []
    pairs = ("full", "lora_r16"), ("full_half", "lora_half")
    for domain, (full, lora), (field, texts, expected) in product(losses, pairs, COMPARED):
        text = f"{DOMAINS[domain]}: {SERIES[lora][0]} − {SERIES[full][0]}: loss on {texts}"
        values = np.subtract(losses[domain][lora][field], losses[domain][full][field])
        others.append((Design(text, 0.02, "nats", expected), values))
    (_, main), *others = others
    lora, full = (losses["critics"][name] for name in ("lora_r16", "full"))
    lower = {field: np.mean(lora[field]) < np.mean(full[field]) for field in ("old", "new")}
    finding = (
        f"LoRA forgets {'less' if lower['old'] else 'more'} than full fine-tuning, and learns "
        f"{'more' if lower['new'] else 'less'}: after training on critics' snippets, the perplexity on reviews has "
        f"risen from {perplexity(outcome['base_losses']['reviews'])} to {perplexity(lora['old'])} with LoRA of rank 16 "
        f"and to {perplexity(full['old'])} with full fine-tuning; on the snippets, it is {perplexity(lora['new'])} and "
        f"{perplexity(full['new'])}. Without the adapter, the base was restored bit for bit in "
        f"{sum(outcome['restored'])} of {len(outcome['restored'])} runs."
    )
    return main, others, finding


def perplexity(losses):
    """Format the perplexity of a loss, or of the mean of several."""
    return f"{np.exp(np.mean(losses)):.1f}"


def table(outcome):
    base, losses = outcome["base_losses"], outcome["losses"]
    rows = {"base; adapter removed again": [{"new": base[d], "old": base["reviews"]} for d in DOMAINS]}
    rows |= {SERIES[name][0]: [losses[d][name] for d in DOMAINS] for name in losses["critics"]}
    lines = [[text, *(f"{perplexity(of['new'])}, {perplexity(of['old'])}" for of in rows[text])] for text in rows]
    return [["perplexity", *(f"{text}: new, reviews: old" for text in DOMAINS.values())], *lines]


def samples():
    """Continuations of a few prompts by the base, alone and with each of the package's adapters, as a dict.

    All models sample with the same random numbers.
    """
    loaded, texts = load_adapter_set([BASE, *shipped_adapters()]), {}
    for name, adapter in loaded.adapters.items():
        for number, prompt in enumerate(PROMPTS):
            rng = np.random.default_rng(number)
            text = write_text_from(loaded.task, prompt, SAMPLE_TOKENS, adapter, SAMPLING, rng)
            texts.setdefault(name, []).append("".join(text))
    return {"prompts": list(PROMPTS), "texts": texts}


def details(outcome):
    prompts, texts = outcome["samples"].values()
    rows = [["adapter", "a continuation of each prompt, with the same random numbers; not cherry-picked"]]
    for name, of_name in texts.items():
        rows.append(
            [name, "<br>".join(" ".join(text.replace(p, f"**{p}**", 1).split()) for p, text in zip(prompts, of_name))]
        )
    return rows


def draw(outcome):
    """Plot the perplexity on reviews against that on each new domain, in one colour per method."""
    from matplotlib.ticker import MaxNLocator

    n, figure = len(outcome["seeds"]), new_figure(13, 5.8)
    before = np.exp(outcome["base_losses"]["reviews"])
    for axes, (domain, losses) in zip(figure.subplots(1, len(DOMAINS)), outcome["losses"].items()):
        for name, of in losses.items():
            text, _, _, colour, marker = SERIES[name]
            x, y = np.exp(of["new"]), np.exp(of["old"])
            axes.plot(x, y, marker, color=colour, alpha=0.35, markersize=6, markeredgewidth=0)
            axes.plot(x.mean(), y.mean(), marker, color=colour, markersize=11, label=text)
        start = np.exp(outcome["base_losses"][domain]), before
        axes.plot(*start, "*", color=COLOURS["base"], markersize=17)
        place = {"xytext": (-12, 8), "textcoords": "offset points", "ha": "right"}
        axes.annotate("the base, or without the adapter", start, color=COLOURS["base"], **place)
        axes.axhline(before, color="black", linestyle=":", linewidth=1.2)
        axes.set(xscale="log", yscale="log", title=DOMAINS[domain], xlabel=f"perplexity on {DOMAINS[domain]}")
        axes.set_ylabel("perplexity on film reviews")
        for axis in (axes.xaxis, axes.yaxis):  # ticks at round numbers
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
            axis.set_ticks([], minor=True)
            plain_numbers(axis)
    legend_below(figure, axes, 4)
    marks = "one seed" if n == 1 else f"large: mean over {n} seeds; small: each seed"
    figure.suptitle(f"What is learned and what is forgotten: lower and further left is better\n({marks})", fontsize=14)
    return figure


RECIPE = Recipe(
    claim="LoRA learns less and forgets less than full fine-tuning (Biderman et al. 2024).",
    design=Design(
        f"critics' snippets: {SERIES['lora_r16'][0]} − full fine-tuning: loss on reviews", 0.02, "nats", "less"
    ),
    bases=("pretrained",),
    caption="""Perplexity on an old domain against perplexity on the new one; lower and further left is better. LoRA
    forgets only while the adapter is attached; without the adapter, the model is the base again (the star). Forgetting
    also depends on the learning rate: compare a method at its best rate for the new domain with the same method at half
    that rate.""",
)
