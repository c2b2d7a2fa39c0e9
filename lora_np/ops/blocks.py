"""Evaluate long elementwise formulas in blocks of rows.

NumPy evaluates a formula one operation at a time, each on the entire array. If the array is larger than a core's cache,
every operation waits for memory. With blocks, all operations except the first and the last find their operands in the
cache. Elementwise results are bit-identical with and without blocks; sums over a row are equal up to rounding.
"""

import numpy as np

BLOCK = 2**18  # elements: 1 MB in float32


def blocks(*arrays):
    """Split several arrays into the same blocks of rows.

    Parameters
    ----------
    arrays : arrays (..., K_i) with the same leading axes

    Yields
    ------
    tuples with one block (n, K_i) of each array. A block of a C-contiguous array is a view, so writing to it writes to
    the array. A block of any other array may be a copy; copies are read-only, so that no write is silently lost. Small
    arrays, and arrays that repeat a single number (all strides 0), are yielded as one block.
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
