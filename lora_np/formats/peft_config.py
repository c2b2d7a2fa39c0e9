"""The rules of PEFT's `adapter_config.json`: which layers an adapter is on, their ranks and scales.

They are PEFT's own (peft.tuners.tuners_utils.check_target_module_exists, peft.utils.other.get_pattern_key), with
its defaults for fields that are not there.
"""

import math
import re
import warnings

OFF = """lora_bias layer_replication use_qalora trainable_token_indices alora_invocation_tokens
target_parameters arrow_config kasa_config use_bdlora monteclora_config""".split()
# What A and B held before training is of no interest, but some ways of starting also change the base.
PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")
READ = """peft_type r lora_alpha lora_dropout rank_pattern alpha_pattern use_rslora use_dora init_lora_weights bias
fan_in_fan_out target_modules exclude_modules layers_to_transform layers_pattern modules_to_save task_type""".split()
# Fields of PEFT that change nothing here; they are kept without a word.
KNOWN = """auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config inference_mode loftq_config
lora_ga_config megatron_config megatron_core peft_version qalora_group_size revision velora_config""".split()
# A pattern's time grows with the name's length to the power of its repeats, and with its alternatives to its groups'.
MOST_REPEATS, MOST_GROUPS, MOST_ALTERNATIVES, MOST_CHARACTERS = 3, 2, 20, 300
INVOLVED = re.compile(r"\)[*+?{]|\(\?|\\[1-9]")  # a group that is repeated, has a meaning of its own, or is read again


def check_fields(path, fields):
    """Refuse a configuration that asks for what ours does not compute, or whose fields are of other types.

    Fields in OFF change what an adapter computes in ways that ours does not, unless they are off.
    """
    if "peft_type" not in fields:
        raise ValueError(f"{path}: peft_type is missing, expected 'LORA'")
    expected = {"peft_type": ("LORA",), "bias": ("none",), "fan_in_fan_out": (False, True)}
    expected |= {"use_rslora": (False, True), "use_dora": (False, True), "init_lora_weights": PLAIN_STARTS}
    for name, values in expected.items():
        got = fields.get(name, values[0])
        if not any(got is value or (isinstance(value, str) and got == value) for value in values):
            raise ValueError(f"{path}: {name} is {got!r}, expected {' or '.join(map(repr, values))}")
    for name in OFF:
        if fields.get(name):
            raise ValueError(f"{path}: {name} is {fields[name]!r}, expected none: it changes what the adapter computes")
    for name in ("rank_pattern", "alpha_pattern"):
        pattern = fields.get(name) or {}
        if not isinstance(pattern, dict):
            raise ValueError(f"{path}: {name} is {pattern!r}, expected an object of layer -> number")
        for key in pattern:
            check_pattern(path, name, key)
    for name in ("target_modules", "exclude_modules", "layers_pattern"):
        value = fields.get(name)
        patterns = [value] if isinstance(value, str) else value or []
        if not isinstance(patterns, list) or not all(isinstance(pattern, str) for pattern in patterns):
            raise ValueError(f"{path}: {name} is {value!r}, expected a text or a list of texts")
        if isinstance(value, str) or name == "layers_pattern":
            for pattern in patterns:
                check_pattern(path, name, pattern)
    layers = fields.get("layers_to_transform")
    for layer in layers if isinstance(layers, list) else [] if layers is None else [layers]:
        if isinstance(layer, bool) or not isinstance(layer, int):
            raise ValueError(f"{path}: layers_to_transform is {layers!r}, expected a whole number or a list of them")


def check_pattern(path, field, pattern):
    """Refuse what is no regular expression, or one that could be tried for ever."""
    bare = pattern.replace("(?:", "(")
    counts = len(re.findall(r"[*+?{]", bare)), bare.count("("), bare.count("|"), len(bare)
    most = MOST_REPEATS, MOST_GROUPS, MOST_ALTERNATIVES, MOST_CHARACTERS
    if any(count > limit for count, limit in zip(counts, most)) or INVOLVED.search(bare):
        raise ValueError(f"{path}: {field} has the pattern {pattern[:80]!r}, which is too involved to be tried out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python warns of what a later version would read otherwise
            re.compile(pattern)
            re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, ValueError, OverflowError, RecursionError, Warning) as error:
        raise ValueError(f"{path}: {field} has {pattern!r}, which is no pattern ({error})") from None


def is_target(fields, module):
    """Whether the configuration puts an adapter on a layer of the base; on any, where it names no targets."""
    if named_by(fields.get("exclude_modules"), module):
        return False
    targets = fields.get("target_modules")
    if targets is None or targets == "all-linear":
        return True
    if not named_by(targets, module):
        return False
    layers = fields.get("layers_to_transform")
    if isinstance(targets, str) or module in targets or layers is None or layers == []:
        return True
    patterns = fields.get("layers_pattern") or []
    numbered = [r".*?\.[^.]*"] if not patterns else [rf"(?:^|.*?\.)(?:{p})" for p in as_list(patterns)]
    found = next((m for pattern in numbered if (m := re.match(rf"{pattern}\.(?P<block>\d+)\.", module))), None)
    return found is not None and int(found["block"]) in as_list(layers)


def named_by(names, module):
    """A text is a pattern over the whole name; a list holds names, or ends of names."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in names or ())


def as_list(value):
    return value if isinstance(value, list) else [value]


def rank_and_scale(path, fields, module):
    """The rank r of a layer's adapter, and its scale s: α/r, or α/√r for rsLoRA."""

    def pick(pattern, default):
        keys = (fields.get(pattern) or {}).items()
        return next((value for key, value in keys if re.match(rf"(.*\.)?({key})$", module)), default)

    rank, alpha = pick("rank_pattern", fields.get("r", 8)), pick("alpha_pattern", fields.get("lora_alpha", 8))
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{path}: the rank of {module} is {rank!r}, expected a whole number of at least 1")
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e30:
        raise ValueError(f"{path}: the alpha of {module} is {alpha!r}, expected a finite number")
    return rank, alpha / (math.sqrt(rank) if fields.get("use_rslora", False) else rank)


def alpha_of(scale, r, rslora):
    """The alpha that gives a scale, s r or s √r, freed of the last digits' rounding where a short number is meant."""
    alpha = scale * (math.sqrt(r) if rslora else r)
    short = float(f"{alpha:.12g}")
    return short if math.isclose(short, alpha, rel_tol=1e-15) else alpha
