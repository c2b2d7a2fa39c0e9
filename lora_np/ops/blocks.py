"""Long elementwise formulas, a few rows at a time.

NumPy carries out a formula one operation after another, each over the whole array. On an array that is
larger than a core's own cache every step then waits for memory. Block by block, all but the first and
the last step find their operands in the cache. What is done element by element comes out bit for bit the
same; where a function sums a row, to rounding.
"""

import numpy as np

BLOCK = 2**18  # elements: 1 MB in float32


def blocks(*arrays):
    """Cut arrays along their rows, all at the same places.

    Parameters
    ----------
    arrays : arrays (..., K_i) with the same leading axes

    Yields
    ------
    tuples of pieces (n, K_i), of each array one: of a C-contiguous array a view, so that what is written
    into it is in the array; of another a read-only copy, so that nothing is written in vain.
    Small arrays, and those that repeat one number and so take no memory, come as they are.
    """
    if not arrays[0].size:
        return
    if arrays[0].size <= BLOCK or not any(arrays[0].strides):
        yield arrays
        return
    rows = [array.reshape(-1, *array.shape[-1:]) for array in arrays]
    for array, its_rows in zip(arrays, rows):
        its_rows.flags.writeable = array.flags.writeable and np.may_share_memory(array, its_rows)
    n = max(1, BLOCK // rows[0].shape[-1])
    for start in range(0, len(rows[0]), n):
        yield tuple(array[start : start + n] for array in rows)
