"""How many parameters are trained, and in which arrays."""

from typing import NamedTuple


class TrainableReport(NamedTuple):
    trainable: int  # parameters that training changes
    total: int  # parameters of the model and its adapter
    percent: float  # 100 · trainable / total
    by_name: dict[str, int]  # array -> its number of trainable parameters

    def __str__(self):
        return f"trainable {self.trainable:,} of {self.total:,} parameters ({self.percent:.3f} %)"


def trainable_report(params, trainable):
    """Count the trainable parameters and all parameters.

    Parameters
    ----------
    params : dict, the base model's weights
    trainable : dict of the arrays that are trained: an adapter's weights, or all or some of params. A name that is also
        in params, such as the head, counts once.

    Returns
    -------
    TrainableReport
    """
    by_name = {name: array.size for name, array in trainable.items()}
    count = sum(by_name.values())
    total = sum(array.size for array in {**params, **trainable}.values())
    return TrainableReport(count, total, 100.0 * count / total, by_name)
