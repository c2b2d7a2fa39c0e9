"""Groups of arrays for parallel threads."""

WORTHWHILE = 2**18  # elements; below this, a thread's overhead exceeds the time that it saves
MOST_GROUPS = 8


def balanced_groups(arrays):
    """Split the names of a dict of arrays into groups with about the same number of elements.

    Returns
    -------
    list of lists of names; one group for a small dict. The groups do not depend on the number of threads.
    """
    total = sum(array.size for array in arrays.values())
    groups = [[] for _ in range(max(1, min(MOST_GROUPS, total // WORTHWHILE)))]
    sizes = [0] * len(groups)
    for name in sorted(arrays, key=lambda name: -arrays[name].size):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(name)
        sizes[smallest] += arrays[name].size
    return [group for group in groups if group]
