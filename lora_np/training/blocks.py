"""Elementwise work over flat dicts: which arrays to hand to which thread, and in what pieces."""

WORTHWHILE = 2**18  # elements: below, handing work to a thread costs more than it saves
MOST_GROUPS = 8
BLOCK = 2**16  # elements: what is made of them on the way stays in a core's own cache


def balanced_groups(arrays):
    """Names in groups of about as many elements each.

    Parameters
    ----------
    arrays : dict of arrays

    Returns
    -------
    list of lists of names; one group for a small dict. The groups depend on the arrays alone, never on
    the number of threads.
    """
    total = sum(array.size for array in arrays.values())
    groups = [[] for _ in range(max(1, min(MOST_GROUPS, total // WORTHWHILE)))]
    sizes = [0] * len(groups)
    for name in sorted(arrays, key=lambda name: -arrays[name].size):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(name)
        sizes[smallest] += arrays[name].size
    return [group for group in groups if group]


def blocks(*arrays):
    """Arrays of one shape, cut alike: yields tuples of flat pieces, of each array one.

    A piece of a C-contiguous array is a view: what is written into it stands in the array.
    """
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, BLOCK):
        yield tuple(array[start : start + BLOCK] for array in flat)
