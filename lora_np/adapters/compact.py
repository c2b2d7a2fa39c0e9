"""Express the ranks and alphas of individual layers as a short configuration."""

from collections import Counter


def layer_name(module):
    """A layer's name within its block: "q_proj" for "blocks.0.attn.q_proj"."""
    return module.rpartition(".")[2]


def compact_targets(modules, candidates, name=layer_name):
    """Targets that select these layers and no others.

    Parameters
    ----------
    modules : full names of the layers to select
    candidates : full names of all layers that can be selected
    name : function, full name -> name within the block

    Returns
    -------
    tuple of str: a layer's name within the block if all layers of this name are selected, otherwise its full name
    """
    in_all_blocks = {name(m) for m in modules} - {name(m) for m in {*candidates} - {*modules}}
    return tuple(dict.fromkeys(name(m) if name(m) in in_all_blocks else m for m in modules))


def compact_pattern(values, name=layer_name):
    """The most frequent value, and a pattern for the layers with other values.

    Parameters
    ----------
    values : dict, full name of a layer -> its rank, or its alpha
    name : function, full name -> name within the block

    Returns
    -------
    value : the most frequent value
    pattern : dict, target -> value; a target is a name within a block if all blocks share the value, else a full name
    """
    common = Counter(values.values()).most_common(1)[0][0]
    by_name = {}
    for module, value in values.items():
        by_name.setdefault(name(module), set()).add(value)
    others = {module: value for module, value in values.items() if value != common}
    return common, {name(m) if len(by_name[name(m)]) == 1 else m: value for m, value in others.items()}
