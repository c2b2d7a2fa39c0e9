"""What a language model writes before and after training: samples, their diversity, and the divergence."""

import numpy as np

from ..checked import quoted
from ..data import decode
from ..model import sample, token_log_probs
from ..training import stream, token_rows
from .writing import end_ids

SAMPLES, N_NEW, SHOWN = 32, 40, 3  # completions to measure, their maximum number of tokens, and how many are shown
DRIFTED, MONOTONOUS = 1.0, 0.8  # nats per token, and a fraction of the distinct bigrams before training


def written_texts(base, trained, prompts, seed, n_new=N_NEW, score=None):
    """Let a model complete SAMPLES prompts before and after training, with the same random numbers.

    Returns a dict, "before" and "after" -> dict: "divergence", the mean of log π(token) − log π_base(token) over the
    tokens, which are drawn from π, in nats (an estimate of KL(π ‖ π_base) per token); "distinct", the fraction of
    different bigrams; "texts", the first completed prompts; and "reward", the mean of score(prompts, completions).
    """
    prompts, results = [prompts[i % len(prompts)] for i in range(SAMPLES)], {}
    for name, model in (("before", base), ("after", trained)):
        rng = stream(seed, "sample", 1)
        completions = sample(model.params, prompts, model.config, n_new, rng, model.adapter, end_ids(base))
        rows = token_rows(prompts, completions)
        ours, its = (token_log_probs(of.params, rows, of.config, of.adapter)[0] for of in (model, base))
        bigrams = [pair for ids in completions for pair in zip(ids.tolist(), ids[1:].tolist())]
        results[name] = {
            "divergence": float((ours - its).sum(dtype=np.float64) / sum(map(len, completions))),
            "distinct": len({*bigrams}) / max(1, len(bigrams)),
            "texts": [decode(base.tokenizer, np.concatenate(pair)) for pair in zip(prompts, completions)][:SHOWN],
        }
        if score is not None:
            results[name]["reward"] = float(np.mean(score(prompts, completions)))
    return results


def format_texts(written):
    """Format the result of `written_texts` as lines, with a warning if the model may exploit its objective."""
    before, after = written["before"], written["after"]
    lines = [f"divergence from the base: {after['divergence']:.2f} nats per token"]
    lines.append(f"distinct bigrams: {after['distinct']:.2f} (before: {before['distinct']:.2f})")
    if after["divergence"] > DRIFTED or after["distinct"] < MONOTONOUS * before["distinct"]:
        lines.append("      Read the texts: the model may exploit its objective (reward hacking). A larger --beta,")
        lines.append("      a smaller --lr or fewer steps keep it closer to the base.")
    for name, of in written.items():
        lines += [f"{name} training:", *(f"  {quoted(text, 300)}" for text in of["texts"])]
    return lines
