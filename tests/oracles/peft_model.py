"""The oracles' side of LoRA: what PEFT trains, under lora_np's names."""

import torch


def load_trained(model, weights):
    """Copy lora_np's arrays into what PEFT trains, which must be of the same names and sizes."""
    trained = trained_parameters(model)
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
