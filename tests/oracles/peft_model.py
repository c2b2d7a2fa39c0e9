"""The oracles' side of LoRA: PEFT's configuration for one of lora_np's, and what PEFT trains, under lora_np's names."""

import re

import peft
import torch

LINEAR = [f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")]  # GPT-2 has no gate


def lora_config(ours, n_classes=0, **more):
    """PEFT's words for an AdapterConfig of kind "lora" or "dora", without dropout."""

    def regex(pattern):  # ours are shell patterns, and name linear layers alone
        return re.escape(pattern).replace(r"\*", ".*_proj")

    def by_regex(pattern):
        return {regex(key): value for key, value in pattern.items()}

    return peft.LoraConfig(
        r=ours.r,
        lora_alpha=ours.alpha,
        target_modules=".*_proj" if ours.targets == ("all-linear",) else f".*({'|'.join(map(regex, ours.targets))})",
        rank_pattern=by_regex(ours.rank_pattern),
        alpha_pattern=by_regex(ours.alpha_pattern),
        use_rslora=ours.rslora,
        use_dora=ours.kind == "dora",
        modules_to_save=["head"] if n_classes else None,
        **more,
    )


def load_trained(model, weights, trained=None):
    """Copy lora_np's arrays into what PEFT trains, which must be of the same names and sizes."""
    trained = trained_parameters(model) if trained is None else trained
    assert set(trained) == set(weights), f"PEFT trains others: {sorted(set(trained) ^ set(weights))}"
    with torch.no_grad():
        for name, parameter in trained.items():
            assert parameter.dtype == torch.float64
            parameter.copy_(torch.tensor(weights[name]).reshape(parameter.shape))  # AdaLoRA's E is a column there


def trained_parameters(model):
    """What PEFT trains, under lora_np's names; AdaLoRA's ranks are among its parameters, but it trains none of them."""
    return {
        our_name(name): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and ".ranknum." not in name
    }


def our_name(name):
    """base_model.model.L.lora_A.default.weight -> L.lora_A; L.modules_to_save.default.weight -> L.weight.

    VeRA's vectors and AdaLoRA's arrays have no .weight.
    """
    name = name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")
    return name.removesuffix(".default.weight").removesuffix(".default")
