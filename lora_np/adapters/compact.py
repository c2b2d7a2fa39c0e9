"""The way back from single layers to a configuration: their ranks and alphas in as few words as they allow."""

from collections import Counter


def layer_name(module):
    """What a layer is called in every block: "q_proj" for "blocks.0.attn.q_proj"."""
    return module.rpartition(".")[2]


def compact_targets(modules, candidates, name=layer_name):
    """Targets that mean these layers and no others.

    Parameters
    ----------
    modules : full names of the layers that are meant
    candidates : full names of all layers that could be
    name : function, full name -> its name in every block

    Returns
    -------
    tuple of str: the name where every block's layer is meant, the full names elsewhere
    """
    meant = set(modules)
    everywhere = {name(m) for m in modules} - {name(m) for m in candidates if m not in meant}
    return tuple(dict.fromkeys(name(m) if name(m) in everywhere else m for m in modules))


def compact_pattern(values, name=layer_name):
    """The commonest value, and a pattern of what differs from it.

    Parameters
    ----------
    values : dict, full name of a layer -> its rank, or its alpha
    name : function, full name -> its name in every block

    Returns
    -------
    value : the commonest
    pattern : dict, target -> value, by name where all blocks agree and by full name elsewhere
    """
    common = Counter(values.values()).most_common(1)[0][0]
    by_name = {}
    for module, value in values.items():
        by_name.setdefault(name(module), set()).add(value)
    pattern = {}
    for module, value in values.items():
        if value != common:
            pattern[name(module) if len(by_name[name(module)]) == 1 else module] = value
    return common, pattern
