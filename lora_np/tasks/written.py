"""What a language model writes before and after training: samples, their diversity, and the divergence."""

import numpy as np

from ..checked import quoted
from ..data import decode
from ..training import complete, stream
from .writing import end_ids

SAMPLES, N_NEW, SHOWN = 32, 40, 3  # completions to measure, their maximum number of tokens, and how many are shown
PROMPT = 100  # characters of a prompt's end that are shown
DRIFTED, MONOTONOUS = 1.0, 0.8  # nats per token, and a fraction of the distinct bigrams before training


def written_texts(base, trained, prompts, seed, n_new=N_NEW, score=None):
    """Let a model complete SAMPLES prompts before and after training, with the same random numbers.

    Returns a dict, "before" and "after" -> dict: the numbers of `complete`; "texts", the first pairs (prompt,
    completion); and "reward", the mean of score(prompts, completions), if there is a `score`.
    """
    prompts, results = [prompts[i % len(prompts)] for i in range(SAMPLES)], {}
    for name, model in (("before", base), ("after", trained)):
        policy, rng = (model.params, model.adapter), stream(seed, "sample", 1)
        completions, results[name] = complete(policy, base.params, base.config, prompts, rng, n_new, end_ids(base))
        pairs = list(zip(prompts, completions))[:SHOWN]
        results[name]["texts"] = [[decode(base.tokenizer, ids) for ids in pair] for pair in pairs]
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
    for (prompt, first), (_, last) in zip(before["texts"], after["texts"]):
        end = "…" * (len(prompt) > PROMPT) + prompt[-PROMPT:]
        lines += [f"prompt {quoted(end)}", f"  before: {quoted(first, 300)}", f"  after:  {quoted(last, 300)}"]
    return lines
