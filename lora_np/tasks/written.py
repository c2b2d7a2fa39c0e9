"""What a language model writes before and after training: samples, their diversity, and the divergence."""

from typing import NamedTuple

import numpy as np

from ..checked import quoted
from ..data import decode
from ..model import sample, token_log_probs
from ..training import stream, token_rows
from .writing import end_ids

SAMPLES, N_NEW, SHOWN = 32, 40, 3  # completions to measure, their maximum number of tokens, and how many are shown
DRIFTED, MONOTONOUS = 1.0, 0.8  # nats per token, and a fraction of the distinct bigrams before training


class Written(NamedTuple):
    texts: list[str]
    divergence: float  # mean of log π − log π_base per token, in nats
    distinct: float  # the fraction of different pairs of neighbouring tokens


def written(model, base, prompts, seed, n_new=N_NEW):
    """Let a model complete SAMPLES prompts, taken in turn, and measure the completions.

    The mean of log π(token) − log π_base(token) over tokens drawn from π is an estimate of KL(π ‖ π_base) per token.

    Parameters
    ----------
    model, base : LoadedModel, after and before training
    prompts : list of arrays of token ids
    seed : int
    n_new : int, the maximum number of tokens in a completion

    Returns
    -------
    Written
    """
    prompts = [prompts[i % len(prompts)] for i in range(SAMPLES)]
    rng, end = stream(seed, "sample", 1), end_ids(base)
    completions = sample(model.params, prompts, model.config, n_new, rng, model.adapter, end)
    rows = token_rows(prompts, completions)
    ours, its = (token_log_probs(of.params, rows, of.config, of.adapter)[0] for of in (model, base))
    n = sum(map(len, completions))
    bigrams = [pair for ids in completions for pair in zip(ids.tolist(), ids[1:].tolist())]
    texts = [decode(base.tokenizer, np.concatenate(pair)) for pair in zip(prompts, completions)]
    return Written(texts, float((ours - its).sum(dtype=np.float64) / n), len({*bigrams}) / max(1, len(bigrams)))


def change_of_writing(base, trained, prompts, seed, n_new=N_NEW):
    """Return, as a dict, what a model writes before and after training; the random numbers are the same."""
    before, after = (written(model, base, prompts, seed, n_new) for model in (base, trained))
    texts = {"before": before.texts[:SHOWN], "after": after.texts[:SHOWN]}
    distinct = {"before": before.distinct, "after": after.distinct}
    return {"divergence": after.divergence, "distinct_bigrams": distinct, "texts": texts}


def format_change(results):
    """Format the result of `change_of_writing` as lines, with a warning if the model may exploit its objective."""
    divergence, distinct = results["divergence"], results["distinct_bigrams"]
    lines = [f"divergence from the base: {divergence:.2f} nats per token"]
    lines.append(f"distinct bigrams: {distinct['after']:.2f} (before: {distinct['before']:.2f})")
    if divergence > DRIFTED or distinct["after"] < MONOTONOUS * distinct["before"]:
        lines.append("      Read the texts: the model may exploit its objective (reward hacking). A larger --beta,")
        lines.append("      a smaller --lr or fewer steps keep it closer to the base.")
    for name, texts in results["texts"].items():
        lines += [f"{name} training:", *(f"  {quoted(text, 300)}" for text in texts)]
    return lines
