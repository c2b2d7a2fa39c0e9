"""The settings of an adapter: its kind, rank and alpha, and the layers that it adapts."""

import fnmatch
import math
from dataclasses import dataclass, field, replace
from functools import partial

from ..checked import check_fields, finite_number, instance_of, one_of, quoted, seed_number, whole_number

INITS = ("kaiming", "gaussian", "pissa", "olora", "loftq")
alpha_number = partial(finite_number, above=-1e30, below=1e30)  # a larger scale would overflow


@dataclass(frozen=True)
class AdapterConfig:
    """The settings of one adapter.

    Parameters
    ----------
    r : int, the rank: the number of rows of A and columns of B
    alpha : float between ±1e30, the numerator of the scale s
    targets : tuple of str, the layers to adapt: a name within a block ("q_proj"), which selects the layer in every
        block, a full name ("blocks.0.attn.q_proj"), a pattern of full names with *, ? or [] ("blocks.[01].mlp.*"), or
        "all-linear". Without targets, only the head is trained.
    rank_pattern, alpha_pattern : dict, target -> the rank or alpha of the layers that the target selects, which
        replaces r or alpha; keys are written as in `targets`, and the first key that matches a layer is used
    rslora : bool, scale by α/√r (Kalajdzievski 2023) instead of α/r
    dropout : float in [0, 1), the dropout probability for the adapter's input during training
    init : "kaiming" (A uniform in ±1/√in, PEFT's default) or "gaussian" (A normal with standard deviation 1/r, as in
        PEFT; the paper's section 4.1 specifies none), both with B = 0; or "pissa", "olora" or "loftq", which
        compute A and B from the base's weights: see `start_adapter`
    rate_factors : dict, the last part of an array's name -> the factor by which its learning rate is multiplied, by
        default 1. LoRA+ uses {"lora_B": 16} (Hayou et al. 2024). 0 freezes the array, as LoRA-FA does with lora_A
        (L. Zhang et al. 2023).
    norm_gradient : bool, for DoRA: also differentiate the norm, which the paper treats as a constant
    projection_seed : int, for VeRA: the seed of its random factors
    train_head : bool, whether the complete classification head is also trained
    kind : str, a key of `adapters.KINDS`
    extra : dict, fields of a configuration file that this package does not use; saving the configuration preserves them

    Raises
    ------
    ValueError
        If a field is invalid; the message names the field, its value and what was expected.
    """

    r: int = 8
    alpha: float = 16.0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    rslora: bool = False
    dropout: float = 0.0
    init: str = "kaiming"
    rate_factors: dict[str, float] = field(default_factory=dict)
    norm_gradient: bool = False
    projection_seed: int = 0
    train_head: bool = True
    kind: str = "lora"
    extra: dict = field(default_factory=dict, compare=False, repr=False)

    def __post_init__(self):
        if not isinstance(self.targets, (tuple, list)) or not all(isinstance(t, str) for t in self.targets):
            raise ValueError(f"targets: got {quoted(self.targets)}, expected a tuple of strings such as ('q_proj',)")
        object.__setattr__(self, "targets", tuple(self.targets))
        check_fields(self, instance_of, "kind", type_=str, expected="a string")
        check_fields(self, instance_of, "rslora", "norm_gradient", "train_head", type_=bool, expected="True or False")
        check_fields(self, instance_of, "extra", type_=dict, expected="a dict")
        if not self.targets and not self.train_head:
            raise ValueError("targets: got none, and no head to train; expected at least one layer to adapt")
        check_fields(self, whole_number, "r")
        check_fields(self, seed_number, "projection_seed")
        check_fields(self, alpha_number, "alpha")
        check_fields(self, finite_number, "dropout", least=0, below=1)
        check_fields(self, each_value, "rank_pattern", check=whole_number)
        check_fields(self, each_value, "alpha_pattern", check=alpha_number)
        check_fields(self, each_value, "rate_factors", check=partial(finite_number, least=0))
        check_fields(self, one_of, "init", choices=INITS)


def each_value(name, values, check):
    """Check each value of a dict of name -> number, and return a copy of the dict."""
    instance_of(name, values, dict, "a dict of name -> number")
    return {key: check(f"{name}[{quoted(key)}]", value) for key, value in values.items()}


def matches(module, target):
    """Whether `target` selects the layer with the full name `module`."""
    return target == "all-linear" or module.endswith("." + target) or fnmatch.fnmatchcase(module, target)


def linear_layers(params):
    """The full names of the adaptable linear layers, which end in "_proj", in execution order."""
    return [name.removesuffix(".weight") for name in params if name.endswith("_proj.weight")]


def adapted_modules(config, params):
    """The full names of the adapted layers, in execution order.

    Parameters
    ----------
    config : AdapterConfig
    params : dict, the base model's weights

    Returns
    -------
    list of str, such as "blocks.0.attn.q_proj"

    Raises
    ------
    ValueError
        If a target, or a key of a pattern, matches no layer of the model.
    """
    modules = linear_layers(params)
    arguments = ("targets", "rank_pattern", "alpha_pattern")
    for argument, target in ((name, target) for name in arguments for target in getattr(config, name)):
        if not any(matches(module, target) for module in modules):
            names = ", ".join(dict.fromkeys(module.rpartition(".")[2] for module in modules))
            raise ValueError(
                f"{argument}: {quoted(target)} matches no layer; expected one of {names}, "
                f"all-linear, or a pattern for names such as {modules[0] if modules else 'none'!r}"
            )
    return [m for m in modules if any(matches(m, target) for target in config.targets)]


def pattern_value(module, pattern, default):
    """The value of a pattern's first key that matches the layer `module`, or the default if no key does."""
    return next((value for key, value in pattern.items() if matches(module, key)), default)


def module_rank(config, module):
    """The rank of one layer's adapter."""
    return pattern_value(module, config.rank_pattern, config.r)


def module_config(config, module):
    """The settings of one layer's adapter, with the layer's own r and alpha, and without patterns."""
    if not config.rank_pattern and not config.alpha_pattern:  # avoid the checks that `replace` runs
        return config
    alpha = pattern_value(module, config.alpha_pattern, config.alpha)
    return replace(config, r=module_rank(config, module), alpha=alpha, rank_pattern={}, alpha_pattern={})


def scaling(config):
    """The scale s of one layer's update: α/r (Hu et al. 2021, section 4.1), or α/√r for rsLoRA."""
    return config.alpha / (math.sqrt(config.r) if config.rslora else config.r)
