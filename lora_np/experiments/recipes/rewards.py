"""Does LoRA of rank 1 learn from rewards as well as full fine-tuning?

The small base continues the first four tokens of film snippets, and GRPO rewards positive texts: the reward is the
probability of "positive" according to a tf-idf regression that was fitted to half of the training snippets. Each run
takes 24 steps with 4 prompts and 8 completions of 24 tokens for each. Full fine-tuning and LoRA on all linear layers
are each run at four learning rates. A higher rate gains more reward, until training collapses, and moves further from
the base, so the methods are compared at equal divergence: each run's path of reward against divergence is interpolated
at 0.5 nats per token, and the reward is averaged over the runs that reach it.

The control is supervised: the same base learns software licences from the same number of tokens (24 steps with 768
tokens), at the best of four rates for each method and seed, chosen by validation loss. A text tells a model far more
than a reward does, so this is where a low rank should fall behind."""

from itertools import product

import numpy as np

from ..design import Design, Recipe
from ..drawing import COLOURS, OTHERS, panels
from ..evidence import minus
from ..runs.dialect import DialectRun, licences_digest
from ..runs.rewards import RewardRun
from ..tables import at_best_rate, at_level, by_method, means_of

RATES = {  # method -> learning rates: for rewards, and for the control
    "full": ((1e-4, 2e-4, 4e-4, 8e-4), (4e-4, 8e-4, 1.6e-3, 3.2e-3)),
    "lora_r1": ((2.5e-3, 5e-3, 1e-2, 2e-2), (8e-3, 1.6e-2, 3.2e-2, 6.4e-2)),
    "lora_r8": ((1e-3, 2e-3, 4e-3, 8e-3), (4e-3, 8e-3, 1.6e-2, 3.2e-2)),
}
LABELS = {
    "full": ("full fine-tuning", COLOURS["full"], "-"),
    "lora_r1": ("LoRA r=1", COLOURS["lora_all"], ":"),
    "lora_r8": ("LoRA r=8", COLOURS["lora_all"], "-"),
}
BETAS = {"reward": 0.0, "penalty": 0.1}
LEVEL = 0.5  # nats per token
CONTROL = {"epochs": 1, "batch_size": 6, "evaluations": 4, "train_tokens": 24 * 768 + 128}
PATHS = "reward", "judge", "divergence", "distinct"


def runs(seeds, quick, base="pretrained"):
    """A dict, ("reward" or "penalty", method, rate, seed) or ("control", …) -> run."""
    more, limit, every = ({"steps": 4}, 2048, 3) if quick else ({}, None, 1)
    control, grid = CONTROL | {"corpus": licences_digest(), "limit": limit}, {}
    for seed, (method, (rates, of_control)) in product(seeds, RATES.items()):
        for rate, (name, beta) in product(rates[::every], BETAS.items()):
            grid[name, method, rate, seed] = RewardRun(method, seed, rate, beta, **more)
        for rate in of_control[::every]:
            grid["control", method, rate, seed] = DialectRun("licences", method, seed, rate, **control)
    return grid


def measure(results, runs, seeds, quick):
    def numbers(run):
        fields = PATHS if isinstance(run, RewardRun) else ("validation_loss", "new")
        return {field: results[run][field] for field in fields}

    trainable = {method: results[run]["trainable"] for (_, method, *_), run in runs.items()}
    return {"paths": by_method(results, runs, numbers), "trainable": trainable}


def rewards_at_level(outcome, of_rates=np.nanmean):
    """The reward at the common divergence, averaged over the rates that reach it, as a dict: method -> values (seeds,).

    The common divergence is LEVEL, or less if a method does not reach it with every seed. A function `of_rates` of the
    rewards at all rates, which are NaN where the level is not reached, replaces the average.
    """
    paths = {method: list(zip(*of_rates.values())) for method, of_rates in outcome["paths"]["reward"].items()}
    reached = [max(max(run["divergence"]) for run in runs) for of_seeds in paths.values() for runs in of_seeds]
    level = min(LEVEL, *reached)
    return {
        method: [float(of_rates([at_level(run, "reward", "divergence", level) for run in runs])) for runs in of_seeds]
        for method, of_seeds in paths.items()
    }


def control(outcome):
    """The test loss of the control at the best rate by validation loss, as a dict: method -> values (seeds,)."""
    return {method: at_best_rate(of_rates)["new"] for method, of_rates in outcome["paths"]["control"].items()}


def conclude(outcome):
    rewards, losses = rewards_at_level(outcome), control(outcome)
    lowest = rewards_at_level(outcome, lambda values: next(value for value in values if np.isfinite(value)))
    ahead, behind, at_lowest = (
        {method: np.subtract(of[method], of["full"]) for method in ("lora_r1", "lora_r8")}
        for of in (rewards, losses, lowest)
    )
    of_8 = Design(f"at a divergence of {LEVEL} nats, LoRA r=8 − full: reward", 5.0)
    others = [
        (of_8, 100 * ahead["lora_r8"]),
        (
            Design("the same at the lowest rate that reaches it, LoRA r=1 − full: reward", 5.0),
            100 * at_lowest["lora_r1"],
        ),
        (Design("control, supervised: LoRA r=1 − full: test loss", 0.02, "nats", "more"), behind["lora_r1"]),
        (Design("control, supervised: LoRA r=8 − full: test loss", 0.02, "nats"), behind["lora_r8"]),
    ]
    mean = {method: 100 * value for method, value in means_of(rewards).items()}
    finding = (
        f"At a divergence of {LEVEL} nats per token, the reward is {mean['full']:.0f} of 100 with full fine-tuning, "
        f"{mean['lora_r8']:.0f} with LoRA r=8 and {mean['lora_r1']:.0f} with LoRA r=1 "
        f"({outcome['trainable']['lora_r1']:,} parameters). Supervised, on as many tokens, LoRA r=1 differs from full "
        f"fine-tuning by {minus(np.mean(behind['lora_r1']), '+.2f')} nats."
    )
    return 100 * ahead["lora_r1"], others, finding


def details(outcome):
    """The last step of each method and rate, without and with the penalty, averaged over seeds."""
    rows = [["method, rate, β", *PATHS]]
    for (name, beta), method in product(BETAS.items(), LABELS):
        for rate, of_seeds in outcome["paths"][name][method].items():
            ends = (np.mean([run[field][-1] for run in of_seeds]) for field in PATHS)
            rows.append([f"{LABELS[method][0]}, {rate}, {beta:g}", *(f"{end:.2f}" for end in ends)])
    return rows


def draw(outcome):
    figure, axes = panels(outcome, "Reward and divergence", 9, 5.6, marks="thick lines: mean")
    for method, of_rates in outcome["paths"]["reward"].items():
        label, shade, style = LABELS[method]
        for of_seeds in of_rates.values():
            for run in of_seeds:
                axes.plot(run["divergence"], run["reward"], style, color=shade, linewidth=0.7, alpha=0.35)
            mean = {field: np.mean([run[field] for run in of_seeds], axis=0) for field in PATHS}
            axes.plot(mean["divergence"], mean["reward"], style, color=shade, label=label, linewidth=1.8, alpha=0.8)
            label = None
    axes.axvline(LEVEL, color=OTHERS[3], linestyle=":", linewidth=1)
    axes.set_xscale("symlog", linthresh=0.1)
    axes.set(xlabel="divergence from the base, nats per token", ylabel="mean reward", xlim=(0, None))
    axes.legend(loc="lower right")
    return figure


RECIPE = Recipe(
    claim="""For policy gradients, LoRA of rank 1 learns as well as full fine-tuning, because a reward carries little
    information (Schulman et al. 2025, LoRA Without Regret).""",
    design=Design(f"at a divergence of {LEVEL} nats, LoRA r=1 − full fine-tuning: reward", 5.0, "points", "equal"),
    bases=("pretrained",),
    limits="""One task, whose reward a model can exploit, and a small base. The learning rates of rewards are not tuned,
    because a higher rate gains more reward and loses more of the base. At equal divergence, a lower rate has gained
    more with each method, so the result depends on the rates.""",
    caption="""The reward against the divergence from the base, from step 0 (left) to 24, at four learning rates for
    each method. Thick lines are means over seeds, thin lines the seeds. Compare the lines at equal divergence, such as
    the dotted one.""",
)
