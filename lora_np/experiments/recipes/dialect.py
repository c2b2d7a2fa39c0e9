"""What does a language model lose in its old domain when it learns a dialect?

The small base was trained on long IMDb reviews. It is fine-tuned for one epoch on critics' snippets, or for three
epochs on software licences, which have a sixth as many tokens. SmolLM2 is fine-tuned on 32,768 tokens of critics'
snippets. On both bases, full fine-tuning is compared with LoRA on all linear layers. Perplexity is measured during
training and at the end, on held-out texts of the new domain and on IMDb reviews. SmolLM2 is also evaluated on licences,
and is prompted for twenty capitals that it knew before fine-tuning. Every LoRA run also checks that removing the
adapter restores the base bit for bit. The learning rates were chosen on the new domain's validation texts. Full
fine-tuning and LoRA of rank 16 are also run at half their learning rates, to show how forgetting depends on the rate.
"""

from itertools import product
from textwrap import wrap

import numpy as np

from ...adapters import Adapter
from ...formats import shipped_adapters
from ...model import GREEDY, Sampling
from ...tasks.adapter_set import BASE, load_adapter_set
from ...tasks.writing import write_text_from
from ...training import blas_threads, language_loss, worthwhile_threads
from ..design import Design, Recipe, nats
from ..drawing import COLOURS, dots, legend_below, new_figure
from ..methods import rate_name, tuned
from ..runs import load_base
from ..runs.dialect import LENGTH, OLD, DialectRun, adapter_of, licences_digest, load_domain

AT_THE_END = """Perplexity on an old domain against perplexity on the new one; lower and further left is better. LoRA
forgets only while the adapter is attached; without the adapter, the model is the base again (the star). Forgetting also
depends on the learning rate: compare a method at its best rate for the new domain with the same method at half that
rate."""
VOICES = """Below: continuations of the same prompts by the base on its own and by the base with each of the package's
two adapters (at most 40 tokens, temperature 0.8, top-k 40, repetition penalty 1.2, the same random numbers for every
model, not cherry-picked)."""
CAPITALS = """Right panel: how many of twenty capitals each model still names or picks. A capital is named if it is the
most probable next word, and picked if it is the most probable of the twenty. Below: continuations of the same prompts
by the base, by the base with the adapter attached and after its removal, and by the fully fine-tuned model."""
DOMAINS = {"critics": "critics' snippets", "licences": "software licences"}
TAUGHT = {"pretrained": {"critics": 1, "licences": 3}, "smollm2": {"critics": 1}}  # base -> domain -> epochs
SMOLLM2 = {"base": "smollm2", "batch_size": 4, "evaluations": 3, "train_tokens": 32768, "limit": 12288}
SERIES = {  # name -> label, method, factor of the chosen rate, colour and marker; the longest runs first
    "full": ("full fine-tuning", "full", 1.0, COLOURS["full"], "s"),
    "full_half": ("full fine-tuning, half the rate", "full", 0.5, COLOURS["full"], "X"),
    "lora_r1": ("LoRA r=1", "lora_r1", 1.0, COLOURS["lora_all"], "v"),
    "lora_r16": ("LoRA r=16", "lora_r16", 1.0, COLOURS["lora_all"], "o"),
    "lora_r16_half": ("LoRA r=16, half the rate", "lora_r16", 0.5, COLOURS["lora_all"], "P"),
}
QUICK_SERIES, QUICK = ("full", "full_half", "lora_r16"), {"limit": 512, "train_tokens": None}
PROMPTS = {
    "pretrained": ("the film", "you may not", "this is a", "in no event", "the actors"),
    "smollm2": ("The weather in London", "My new telephone", "The capital of France is"),
}
SAMPLING = {"pretrained": Sampling(temperature=0.8, top_k=40, repetition_penalty=1.2), "smollm2": GREEDY}
SAMPLE_TOKENS = 40
SHOWN = "lora_r16"  # beside full fine-tuning
SIDE_BY_SIDE = {  # base -> title, and what is in the columns
    "pretrained": ("One model, three voices", ("base", "lora_all", "lora_all")),
    "smollm2": ("SmolLM2 learns the critics' dialect", ("base", "lora_all", "base", "full")),
}


def runs(seeds, quick, base="pretrained"):
    """A dict, (domain, name in SERIES, seed) -> run."""
    grid, more = {}, QUICK if quick else {}
    for seed, domain, name in product(seeds, TAUGHT[base], QUICK_SERIES if quick else SERIES):
        _, method, factor, *_ = SERIES[name]
        rate = factor * tuned(rate_name(f"{domain}, {method}", base=base))
        keep = base == "smollm2" and seed == seeds[0] and name in ("full", SHOWN)
        grid[domain, name, seed] = run_of(base, domain, method, seed, rate, keep=keep, **more)
    return grid


def run_of(base, domain, method, seed, rate, **more):
    """A run with its domain's number of epochs and, if needed, a digest of the licences, which vary by machine."""
    corpus = licences_digest() if "licences" in (domain, *OLD[base]) else ""
    more = (SMOLLM2 if base == "smollm2" else {}) | more
    return DialectRun(domain, method, seed, rate, TAUGHT[base][domain], corpus, **more)


def measure(results, runs, seeds, quick):
    first = next(iter(runs.values()))
    texts = {name: load_domain(name, first.base, first.limit).test for name in (*TAUGHT[first.base], *OLD[first.base])}
    of_base = {name: base_loss(first.base, tokens) for name, tokens in texts.items()}
    losses = {}  # domain -> name in SERIES -> losses in nats per token, one per seed
    for (domain, name, _), run in runs.items():
        numbers = results[run]
        of = losses.setdefault(domain, {}).setdefault(name, {"new": [], "old": {}, "way": [], "capitals": []})
        of["new"].append(numbers["new"])
        for old, loss in numbers["old"].items():
            of["old"].setdefault(old, []).append(loss)
        of["way"].append([numbers["history"]["eval_loss"], numbers["history"]["eval_old"]])
        of["capitals"].append(numbers.get("capitals"))
    adapted = [results[run] for run in runs.values() if run.method != "full"]
    restored = [numbers["removed_bit_for_bit"] and numbers["base_untouched"] for numbers in adapted]
    more = {"licences_sha256": licences_digest(), "samples": samples(first.base, results, runs, seeds[0])}
    return {"base_losses": of_base, "losses": losses, "restored": restored, **more}


def base_loss(base, tokens):
    """The loss of a base on a token stream, in nats per token."""
    params, config, *_ = load_base(base)
    with blas_threads(1):
        return language_loss(params, config, tokens, length=LENGTH, threads=worthwhile_threads(params))


def compare(outcome):
    others, losses = [], outcome["losses"]
    for domain, of in losses.items():
        for full, lora in (("full", "lora_r16"), ("full_half", "lora_r16"), ("full_half", "lora_r16_half")):
            if {full, lora} <= of.keys():
                text = f"{DOMAINS[domain]}: {SERIES[full][0]} − {SERIES[lora][0]}: loss on"
                for old in of[full]["old"]:
                    forgotten = np.subtract(of[full]["old"][old], of[lora]["old"][old])
                    if (domain, full, old) != ("critics", "full", "reviews"):  # the main comparison
                        others.append(nats(f"{text} {old}", forgotten, expected="more"))
                learned = np.subtract(of[full]["new"], of[lora]["new"])
                others.append(nats(f"{text} the new domain", learned, expected="less"))
    full, lora = (losses["critics"][name]["old"]["reviews"] for name in ("full", "lora_r16"))
    return (np.subtract(full, lora),), others


def finding(outcome):
    of, base = outcome["losses"]["critics"], outcome["base_losses"]["reviews"]
    old = {name: np.exp(np.mean(of[name]["old"]["reviews"])) for name in ("lora_r16", "full")}
    new = {name: np.exp(np.mean(of[name]["new"])) for name in old}
    return (
        f"After training on critics' snippets, the perplexity on reviews rises from {np.exp(base):.1f} "
        f"to {old['lora_r16']:.1f} with LoRA of rank 16 and to {old['full']:.1f} with full fine-tuning; on the "
        f"snippets, it is {new['lora_r16']:.1f} and {new['full']:.1f}. Without the adapter, the base was restored bit "
        f"for bit in {sum(outcome['restored'])} of {len(outcome['restored'])} runs."
    )


def samples(base, results, runs, seed):
    """Continuations of a few prompts by several models, with the same random numbers.

    The models are the small base, alone and with each of the package's adapters; or SmolLM2 before fine-tuning, with
    LoRA, with LoRA removed, and after full fine-tuning.
    """
    if base == "pretrained":
        loaded = load_adapter_set([BASE, *shipped_adapters()])
        models = {name: (loaded.task, adapter) for name, adapter in loaded.adapters.items()}
    else:
        task = load_base(base)
        lora, full = (runs["critics", name, seed] for name in (SHOWN, "full"))
        adapter = Adapter(adapter_of(lora.method), results.arrays(lora))
        models = {
            "the base": (task, None),
            f"the base with an adapter: {SERIES[SHOWN][0]}": (task, adapter),
            "the adapter removed again": (task, None),
            "full fine-tuning": (task._replace(params={**task.params, **results.arrays(full)}), None),
        }
    texts = {name: [] for name in models}
    for name, (task, adapter) in models.items():
        for number, prompt in enumerate(PROMPTS[base]):
            rng = np.random.default_rng(number)
            text = write_text_from(task, prompt, SAMPLE_TOKENS, adapter, SAMPLING[base], rng)
            texts[name].append("".join(text))
    return {"prompts": list(PROMPTS[base]), "texts": texts}


def draw(outcome):
    """Plot perplexities: in the top row, on test texts at the end; below, on validation texts during training."""
    figure = new_figure(13, 11)
    panels = figure.subplots(2, len(DOMAINS))
    for column, domain in zip(panels.T, DOMAINS):
        at_the_end(column[0], outcome, domain, "reviews")
        column[0].set_title(DOMAINS[domain])
        for name, of in outcome["losses"][domain].items():
            way = np.exp(np.mean(of["way"], axis=0))  # (2, evaluations)
            column[1].plot(*way, SERIES[name][-1] + "-", color=SERIES[name][-2], markersize=6, linewidth=1.8)
        for axes, split in zip(column, ("test", "validation")):
            perplexities(axes, f"perplexity on {DOMAINS[domain]}, {split} texts")
    for axes, when in zip(panels[:, 0], ("at the end, test", "during training, validation")):
        axes.set_ylabel(f"perplexity on film reviews ({when})")
    legend_below(figure, panels[0, 0], 3)
    title = "What is learned and what is forgotten: lower and further left is better"
    figure.suptitle(f"{title}\n({marks(outcome)})", fontsize=14)
    return figure


def draw_forgetting(outcome):
    """Plot SmolLM2's perplexity on two old domains against that on the new one, and the counts of correct capitals."""
    figure = new_figure(16, 5.6)
    *pair, right = figure.subplots(1, 3)
    for axes, old in zip(pair, OLD["smollm2"]):
        at_the_end(axes, outcome, "critics", old)
        perplexities(axes, "perplexity on critics' snippets: new")
        axes.set_ylabel(f"perplexity on {old}: old")
    legend_below(figure, pair[0], 6)
    rows = [
        (f"{SERIES[name][0]}, {question}", [of_seed[question] for of_seed in of["capitals"]], SERIES[name][3])
        for name, of in outcome["losses"]["critics"].items()
        for question in ("named", "picked")
    ]
    dots(right, *zip(*rows), "correct capitals, of twenty that it knew")
    right.set_xlim(-0.5, 20.5)
    figure.suptitle(f"SmolLM2: what is learned and what is forgotten ({marks(outcome)})", fontsize=14)
    return figure


def at_the_end(axes, outcome, domain, old):
    """Plot the perplexity on an old domain's test texts against that on a new domain's, in one colour per method."""
    for name, of in outcome["losses"][domain].items():
        text, _, _, colour, marker = SERIES[name]
        x, y = np.exp(of["new"]), np.exp(of["old"][old])
        axes.plot(x, y, marker, color=colour, alpha=0.35, markersize=6, markeredgewidth=0)
        axes.plot(x.mean(), y.mean(), marker, color=colour, markersize=11, label=text)
    before = np.exp(outcome["base_losses"][old])
    star = {"color": COLOURS["base"], "markersize": 17, "label": "base; adapter removed again"}
    axes.plot(np.exp(outcome["base_losses"][domain]), before, "*", **star)
    axes.axhline(before, color="black", linestyle=":", linewidth=1.2)


def perplexities(axes, label):
    """Make both axes logarithmic, with ticks at round numbers."""
    from matplotlib.ticker import MaxNLocator

    axes.set(xscale="log", yscale="log", xlabel=label)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axis.set_ticks([], minor=True)
        axis.set_major_formatter(lambda value, _: f"{value:g}")


def marks(outcome):
    """Describe what the large and the small markers show."""
    n = len(outcome["seeds"])
    return "one seed" if n == 1 else f"large: mean over {n} seeds; small: each seed"


def draw_side_by_side(outcome):
    """Draw the texts of `samples`, one column per model."""
    from matplotlib.colors import to_rgba

    prompts, texts = outcome["samples"]["prompts"], outcome["samples"]["texts"]
    figure = new_figure(16, 1.8 * len(prompts) + 1)
    grid = figure.subplots(len(prompts), len(texts), squeeze=False)
    title, kinds = SIDE_BY_SIDE[outcome["base"]]
    for column, (name, of_name), kind in zip(grid.T, texts.items(), kinds):
        shade = COLOURS[kind]
        column[0].set_title(name, color=shade, fontweight="bold")
        for axes, prompt, text in zip(column, prompts, of_name):
            axes.set(xticks=[], yticks=[], facecolor=to_rgba(shade, 0.10))
            lines = wrap(" ".join(text.replace(prompt, prompt.upper(), 1).split()), 38)
            shown = axes.text(0.04, 0.92, "\n".join(lines), va="top", transform=axes.transAxes, fontsize=12)
            shown.set_in_layout(False)  # or the panels would shrink
            axes.spines[:].set_visible(False)
    figure.suptitle(f"{title}; the prompt is in capitals", fontsize=15)
    return figure


RECIPE = Recipe(
    claim="LoRA learns less and forgets less than full fine-tuning (Biderman et al. 2024).",
    design=Design("critics' snippets: full fine-tuning − LoRA r=16: loss on reviews", 0.02, "nats", expected="more"),
    bases=("pretrained", "smollm2"),
    runs=runs,
    measure=measure,
    compare=compare,
    finding=finding,
    draw={
        "pretrained": {"dialect": draw, "dialect_side_by_side": draw_side_by_side},
        "smollm2": {"dialect": draw_forgetting, "dialect_side_by_side": draw_side_by_side},
    },
    caption={"pretrained": f"{AT_THE_END} {VOICES}", "smollm2": f"{AT_THE_END} {CAPITALS}"},
)
