"""The oracles' side of LoRA: PEFT on a TorchModel."""

import peft
import torch

from .torch_model import torch_model


def peft_model(params, config, lora_config, adapter):
    """A TorchModel with lora_np's weights, adapted by PEFT with lora_np's adapter loaded into it."""
    model = peft.get_peft_model(torch_model(params, config), lora_config)
    load_adapter(model, adapter.weights)
    return model


def load_adapter(model, weights):
    """Load lora_np's arrays as the state dict of a PEFT adapter, and assert that every one fits."""
    state = {
        "base_model.model." + (name + ".weight" if ".lora_" in name else name): torch.tensor(array)
        for name, array in weights.items()
    }
    result = peft.set_peft_model_state_dict(model, state)
    assert not result.unexpected_keys, f"PEFT has no place for {result.unexpected_keys}"
    trained = trained_parameters(model)
    assert set(trained) == set(weights), f"PEFT trains others: {sorted(set(trained) ^ set(weights))}"
    for name, parameter in trained.items():
        assert torch.equal(parameter, torch.tensor(weights[name])), f"{name} was not loaded"


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
