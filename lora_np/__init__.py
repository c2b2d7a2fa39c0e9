"""LoRA (low-rank adaptation) from scratch in NumPy, with every gradient written by hand.

The names in `__all__` are imported from their subpackages on first use, so `import lora_np` needs only NumPy.

>>> import lora_np
>>> params, config = lora_np.load_pretrained()
>>> adapter = lora_np.init_adapter(params, lora_np.AdapterConfig(r=8), rng)
>>> logits, cache = lora_np.forward(params, ids, config, adapter=adapter, wanted=tuple(adapter.weights))
>>> grads = lora_np.backward(dlogits, cache)
"""

from importlib import import_module

__version__ = "0.2.0"

_ROOMS = {
    "adapters": ("AdapterConfig", "init_adapter", "merge"),
    "formats": ("load_pretrained", "load_task", "read_model"),
    "model": ("backward", "forward", "generate"),
    "tasks": ("FinetuneSettings", "LabelledTable", "export", "finetune", "predict"),
    "tasks.estimator": ("TextClassifier",),
}
__all__ = sorted(name for names in _ROOMS.values() for name in names)


def __getattr__(name):
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(import_module(f".{room}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
