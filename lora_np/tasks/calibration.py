"""Temperature scaling (Guo et al. 2017): make a classifier's probabilities match how often it is right."""

import numpy as np

from ..adapters import head_arrays

TEMPERATURES = np.geomspace(0.05, 20.0, 1201)  # 0.5 % apart


def best_temperature(probabilities, classes):
    """Return the temperature T that minimises the mean of −log softmax(z / T)_y, where z is the log of `probabilities`.

    Parameters
    ----------
    probabilities : (N, K)
    classes : (N,) integers, the true classes
    """
    z = np.log(np.maximum(probabilities, 1e-30))  # differs from the logits by a constant for each text
    of_true = z[np.arange(len(z)), classes]  # (N,)

    def loss(T):
        return np.mean(
            np.log(np.exp((z - z.max(axis=1, keepdims=True)) / T).sum(axis=1)) - (of_true - z.max(axis=1)) / T
        )

    return float(min(TEMPERATURES, key=loss))


def scaled_head(model, temperature):
    """Return a classifier with its head's arrays, and therefore its logits, divided by a temperature."""
    arrays = model.params if model.adapter is None else model.adapter.weights
    scaled = {**arrays, **{name: array / array.dtype.type(temperature) for name, array in head_arrays(arrays).items()}}
    if model.adapter is None:
        return model._replace(params=scaled)
    return model._replace(adapter=model.adapter._replace(weights=scaled))
