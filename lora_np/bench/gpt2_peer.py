"""Generation by transformers: its GPT-2 with lora_np's weights, its `generate` with a key-value cache."""

from contextlib import contextmanager

from ..formats.gpt2 import PREFIX, gpt2_fields, gpt2_tensors
from .case import Side


@contextmanager
def make_side(case, threads):
    """The case in transformers on so many threads."""
    import torch

    torch.set_num_threads(threads)
    model = gpt2(case.params, case.config)
    prompt = torch.tensor(case.batch.ids)
    settings = {
        "attention_mask": torch.ones_like(prompt),
        "min_new_tokens": case.n_new,
        "max_new_tokens": case.n_new,
        "do_sample": False,
        "use_cache": True,
        "pad_token_id": 0,
        "eos_token_id": None,  # no token ends a text: all sides make as many
    }

    def generate():
        with torch.inference_mode():
            return model.generate(prompt, **settings).numpy()

    def step():
        generate()
        return 0.0

    yield Side(lambda: (0.0, {"tokens": generate()}), step)


def gpt2(params, config):
    """transformers' GPT-2 language model with lora_np's weights, in evaluation."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(**gpt2_fields(config))).eval()
    state = {PREFIX + name: torch.tensor(array) for name, array in gpt2_tensors(params, config).items()}
    result = model.load_state_dict(state, strict=False)
    missing = [name for name in result.missing_keys if name != "lm_head.weight"]  # tied to wte
    if missing or result.unexpected_keys:
        raise ValueError(f"GPT-2: missing {missing}, unexpected {result.unexpected_keys}; expected none")
    return model
