"""Bytes of a flat dict of arrays."""


def tensor_bytes(tensors):
    """Bytes of a flat dict's arrays in memory. AdamW's state is twice those of what it trains."""
    return sum(array.nbytes for array in tensors.values())
