"""Text from the base and from the adapters that come with the package, side by side."""

import numpy as np

from ..formats import shipped_adapters
from ..model import Sampling
from ..tasks.adapter_set import BASE, load_adapter_set
from ..tasks.writing import write_text_from

PROMPTS = ("the film", "you may not", "this is a", "in no event", "the actors")
SAMPLING = Sampling(temperature=0.8, top_k=40, repetition_penalty=1.2)
SAMPLE_TOKENS = 40


def samples():
    """Continuations of a few prompts by the base and by each shipped adapter, from the same random numbers."""
    loaded = load_adapter_set([BASE, *shipped_adapters()])

    def text(prompt, adapter, rng):
        return "".join(write_text_from(loaded.task, prompt, SAMPLE_TOKENS, adapter, SAMPLING, rng))

    texts = {
        name: [text(prompt, adapter, np.random.default_rng(number)) for number, prompt in enumerate(PROMPTS)]
        for name, adapter in loaded.adapters.items()
    }
    return {"prompts": list(PROMPTS), "texts": texts}


def format_samples(outcome):
    """The samples as Markdown."""
    lines = [
        "# One model, three voices",
        "",
        "Written by `python -m lora_np experiment dialect`: each prompt continued by the base, which has read film",
        "reviews, and by the base with each adapter that comes with the package. Temperature "
        f"{SAMPLING.temperature:g}, top-k {SAMPLING.top_k},",
        f"repetition penalty {SAMPLING.repetition_penalty:g}, at most {SAMPLE_TOKENS} tokens, the same random numbers "
        "in each column; nothing was picked by hand.",
        "",
        "| " + " | ".join(outcome["texts"]) + " |",
        "|" + "---|" * len(outcome["texts"]),
    ]
    for number, prompt in enumerate(outcome["prompts"]):
        cells = [texts[number].replace("|", "\\|") for texts in outcome["texts"].values()]
        cells = [f"**{prompt}**{cell.removeprefix(prompt)}" for cell in cells]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
