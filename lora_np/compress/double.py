"""Double quantisation: quantise the scales of a quantised matrix (Dettmers et al. 2023, QLoRA, section 3)."""

from typing import NamedTuple

import numpy as np

from .weight import as_divisor, read_only

GROUP = 256  # scales that share a step


class DoubleQuantised(NamedTuple):
    """8-bit scales: scale = mean + step · code."""

    codes: np.ndarray  # (n,) int8, −127 … 127
    steps: np.ndarray  # (⌈n / 256⌉,) float32, one for each group of 256 scales
    mean: np.float32  # mean of all scales of the matrix

    @property
    def nbytes(self):
        return self.codes.nbytes + self.steps.nbytes + self.mean.nbytes

    def dequantise(self):
        """The scales, (n,) float32. Scales that rounding makes negative, by at most half a step, become zero."""
        return np.maximum(self.mean + spread(self.steps, self.codes.size) * self.codes, np.float32(0))


def double_quantise(scales):
    """Quantise scales to 8 bits.

    A float32 scale for 64 weights takes 32/64 = 0.5 bits per weight. 8-bit scales, with one step per 256 scales, take

        8/64 + 32/(64 · 256) = 0.127 bits per weight,

    plus a negligible amount for the mean. Scales are non-negative, so signed codes would waste half of their range.
    Therefore the codes represent deviations from the mean, which are roughly symmetric around zero.

    With step = max |scale − mean| / 127 in each group, the code is (scale − mean) / step, rounded to the nearest
    integer (ties to even), so a scale changes by at most half a step. The paper uses 8-bit floats instead.

    Parameters
    ----------
    scales : array (n,) float32, non-negative. The last group is shorter if 256 does not divide n.

    Returns
    -------
    DoubleQuantised
    """
    mean = np.float32(scales.mean(dtype=np.float64))
    centred = scales - mean  # (n,)
    starts = np.arange(0, scales.size, GROUP)
    steps = np.maximum.reduceat(np.abs(centred), starts) / np.float32(127)  # (⌈n / 256⌉,)
    codes = np.rint(centred / spread(as_divisor(steps), scales.size))
    codes = np.clip(codes, -127, 127)  # values exceed 127 only if a step is subnormal
    return DoubleQuantised(read_only(codes.astype(np.int8)), read_only(steps), mean)


def spread(steps, n):
    """Return an array (n,) that contains, for each scale, the step of its group."""
    return np.repeat(steps, GROUP)[:n]
