"""The plain program's outputs for each kind of case, as functions of the case's settings and inputs."""

from functools import partial

from . import calls, files, model, training
from . import operations as op


def operation(name, settings, t):
    """The outputs of an operation and the gradients of its operands."""
    values = settings | {name.replace(".", "_"): array for name, array in t.items()}
    outputs = calls.forward(op, name, values)
    grads = calls.backward(op, name, values | outputs)
    outputs |= {name: array[..., 0] for name, array in outputs.items() if name.startswith("inv_")}
    return outputs | {f"grad.{operand}": grad for operand, grad in grads.items()}


def encoder_attention(settings, t):
    return operation("attention", settings, t | {"positions": t["lengths"][:, None] - 1})


def rope(settings, t):
    cos, sin = op.rope_tables(t["positions"], settings["head_size"], float(t["theta"]))
    return {"cos": cos, "sin": sin} | operation("rope", settings, t | {"cos": cos, "sin": sin})


def linear_cross_entropy(settings, t):
    loss, grad_x, grad_weight = op.linear_cross_entropy(t["x"], t["weight"], t["targets"], **settings)
    return {"loss": loss, "grad.x": grad_x, "grad.weight": grad_weight}


def adapted(kind, settings, t):
    """The outputs of `operation` for a linear layer with an adapter, its update, and the merged weight."""
    s = op.scale(settings["r"], settings["alpha"], settings["rslora"])
    values = t | {"s": s, "m": t.get("lora_magnitude_vector")}
    delta = calls.delta(op, kind, values)
    return operation(kind, settings, values) | {"delta": delta, "merged": t["weight"] + delta}


def qalora(settings, t):
    weight = files.expand(t["blocks"], "q4_1").astype(t["x"].dtype)
    outputs = adapted("qalora", settings, t | {"weight": weight})
    return outputs | {"weight": weight, "merged": files.offsets_moved(t["blocks"], outputs["delta"][:, ::32])}


def sample(settings, t):
    probs, tokens = op.sample(t["logits"], t["ids"], t["uniform"], **settings)
    return {"probs": probs, "tokens": tokens}


def clip(settings, t):
    norm, clipped = training.clip(calls.under("grad.", t), settings["max_norm"])
    return {"norm": norm} | {f"clipped.{name}": g for name, g in clipped.items()}


def schedule(settings, t):
    return {"learning_rate": [training.rate_at(i, **settings) for i in range(settings["steps"])]}


def of_model(compute):
    """Wrap a model's function `compute` so that it also accepts weights that are stored in blocks."""

    def computed(settings, t):
        if "blocks" in settings:
            packed = [name for name in t if name.endswith("_proj.weight")]
            dtype = t["tok_emb.weight"].dtype
            t = t | {name: files.expand(t[name], settings["blocks"]).astype(dtype) for name in packed}
        return compute(settings, t)

    return computed


def programs():
    """Return a dict, kind of case -> the function that computes its outputs."""
    functions = encoder_attention, rope, linear_cross_entropy, qalora, sample, clip, schedule
    functions += training.adamw, training.accumulate, training.spectrum, training.nf4, training.grpo, training.dpo
    functions += files.gpt2_read, files.gpt2_write, files.peft_read, files.peft_write
    functions += files.blocks, files.gguf_read, files.gguf_adapter
    return {
        **{name: partial(operation, name) for name in calls.OPERATIONS},
        **{function.__name__: function for function in functions},
        "grouped_attention": partial(operation, "attention"),
        **{kind: partial(adapted, kind) for kind in ("lora", "dora")},
        **dict.fromkeys(("model", "llama", "bert"), of_model(model.model)),
        **dict.fromkeys(("generate", "llama_generate"), of_model(model.generate)),
        **dict.fromkeys(("train", "llama_train"), of_model(training.train)),
    }


PLAIN = programs()
