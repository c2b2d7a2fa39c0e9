"""What the plain program makes of each kind of case: functions of a case's settings and inputs."""

from . import files, model, training
from . import operations as op


def linear(settings, t):
    bias = t.get("bias")
    y = op.linear(t["x"], t["weight"], bias)
    grad_x, grad_weight, grad_bias = op.linear_backward(t["grad.y"], t["x"], t["weight"])
    return {"y": y, "grad.x": grad_x, "grad.weight": grad_weight, "grad.bias": grad_bias}


def layer_norm(settings, t):
    y, x_hat, inv_std = op.layer_norm(t["x"], t["weight"], t["bias"], settings["eps"])
    grad_x, grad_weight, grad_bias = op.layer_norm_backward(t["grad.y"], t["x"], t["weight"], x_hat, inv_std)
    grads = {"grad.x": grad_x, "grad.weight": grad_weight, "grad.bias": grad_bias}
    return {"inv_std": inv_std[..., 0], "x_hat": x_hat, "y": y, **grads}


def rms_norm(settings, t):
    y, x_hat, inv_rms = op.rms_norm(t["x"], t["weight"], settings["eps"])
    grad_x, grad_weight = op.rms_norm_backward(t["grad.y"], t["x"], t["weight"], x_hat, inv_rms)
    return {"inv_rms": inv_rms[..., 0], "x_hat": x_hat, "y": y, "grad.x": grad_x, "grad.weight": grad_weight}


def gelu(settings, t):
    y, slope = op.gelu(t["x"])
    return {"y": y, "slope": slope, "grad.x": op.gelu_backward(t["grad.y"], t["x"], slope)}


def swiglu(settings, t):
    grad_gate, grad_up = op.swiglu_backward(t["grad.y"], t["gate"], t["up"])
    return {"y": op.swiglu(t["gate"], t["up"]), "grad.gate": grad_gate, "grad.up": grad_up}


def softmax(settings, t):
    probs = op.softmax(t["x"])
    return {"probs": probs, "grad.x": op.softmax_backward(t["grad.probs"], probs)}


def attention(settings, t):
    q, k, v, H = t["q"], t["k"], t["v"], settings["n_heads"]
    context, probs, scores = op.attention(q, k, v, H, t.get("positions"))
    grads = op.attention_backward(t["grad.context"], q, k, v, probs, H)
    names = ("grad.v", "grad.probs", "grad.scores", "grad.q", "grad.k")
    return {"scores": scores, "probs": probs, "context": context, **dict(zip(names, grads))}


def rope(settings, t):
    cos, sin = op.rope_tables(t["positions"], settings["head_size"], float(t["theta"]))
    return {"cos": cos, "sin": sin, "y": op.rope(t["x"], cos, sin), "grad.x": op.rope_backward(t["grad.y"], cos, sin)}


def embedding(settings, t):
    grad_weight = op.embedding_backward(t["grad.y"], t["ids"], t["weight"])
    return {"y": op.embedding(t["ids"], t["weight"]), "grad.weight": grad_weight}


def cross_entropy(settings, t):
    logits, targets, ignored = t["logits"], t["targets"], settings["ignore_index"]
    grad_logits = op.cross_entropy_backward(settings["grad_loss"], logits, targets, ignored)
    return {"loss": op.cross_entropy(logits, targets, ignored), "grad.logits": grad_logits}


def linear_cross_entropy(settings, t):
    loss, grad_x, grad_weight = op.linear_cross_entropy(t["x"], t["weight"], t["targets"], **settings)
    return {"loss": loss, "grad.weight": grad_weight, "grad.x": grad_x}


def dropout(settings, t):
    return {"y": op.dropout(t["x"], t["mask"]), "grad.x": op.dropout_backward(t["grad.y"], t["mask"])}


def lora(settings, t):
    x, weight, mask = t["x"], t["weight"], t.get("mask")
    A, B, s = t["lora_A"], t["lora_B"], op.scale(settings["r"], settings["alpha"], settings["rslora"])
    y, su = op.lora(x, weight, t["bias"], A, B, s, mask)
    grads = op.lora_backward(t["grad.y"], x, weight, A, B, s, mask, su)
    names = ("grad.x", "grad.weight", "grad.bias", "grad.lora_B", "grad.lora_A")
    delta = op.lora_delta(weight, A, B, s)
    return {"su": su, "y": y, **dict(zip(names, grads)), "delta": delta, "merged": weight + delta}


def dora(settings, t):
    x, weight, mask, m = t["x"], t["weight"], t.get("mask"), t["lora_magnitude_vector"]
    A, B, s = t["lora_A"], t["lora_B"], op.scale(settings["r"], settings["alpha"], settings["rslora"])
    y, norm, h, su = op.dora(x, weight, t["bias"], A, B, m, s, mask)
    grads = op.dora_backward(t["grad.y"], x, weight, A, B, m, s, mask, h, su, y, settings["norm_gradient"])
    names = ("grad.x", "grad.weight", "grad.bias", "grad.lora_magnitude_vector", "grad.lora_B", "grad.lora_A")
    delta = op.dora_delta(weight, A, B, m, s)
    outputs = {"norm": norm, "h": h, "su": su, "y": y, **dict(zip(names, grads))}
    return {**outputs, "delta": delta, "merged": weight + delta}


def qalora(settings, t):
    weight = files.expand(t["blocks"], "q4_1").astype(t["x"].dtype)
    A, B, s = t["lora_A"], t["lora_B"], op.scale(settings["r"], settings["alpha"], settings["rslora"])
    y, pooled, su = op.qalora(t["x"], weight, t["bias"], A, B, s, t["mask"])
    grads = op.qalora_backward(t["grad.y"], t["x"], weight, A, B, s, t["mask"], pooled, su)
    names = ("grad.x", "grad.bias", "grad.lora_B", "grad.lora_A")
    delta = op.qalora_delta(weight, A, B, s)
    merged = files.offsets_moved(t["blocks"], delta[:, ::32])
    return {"weight": weight, "pooled": pooled, "y": y, **dict(zip(names, grads)), "delta": delta, "merged": merged}


def sample(settings, t):
    probs, tokens = op.sample(t["logits"], t["ids"], t["uniform"], **settings)
    return {"probs": probs, "tokens": tokens}


def clip(settings, t):
    norm, clipped = training.clip(training.under("grad.", t), settings["max_norm"])
    return {"norm": norm} | {f"clipped.{name}": g for name, g in clipped.items()}


def schedule(settings, t):
    return {"learning_rate": [training.rate_at(i, **settings) for i in range(settings["steps"])]}


def of_model(compute):
    """A computation of a model whose weights may be in blocks."""

    def computed(settings, t):
        if "blocks" in settings:
            of_blocks = {name: array for name, array in t.items() if name.endswith("_proj.weight")}
            dtype = t["tok_emb.weight"].dtype
            t = t | {name: files.expand(array, settings["blocks"]).astype(dtype) for name, array in of_blocks.items()}
        return compute(settings, t)

    return computed


PLAIN = {
    **{f.__name__: f for f in (linear, layer_norm, rms_norm, gelu, swiglu, softmax, attention, rope, embedding)},
    **{
        f.__name__: f
        for f in (cross_entropy, linear_cross_entropy, dropout, lora, dora, qalora, clip, schedule, sample)
    },
    **{f.__name__: f for f in (training.adamw, training.accumulate, training.spectrum, training.nf4)},
    **{f.__name__: f for f in (files.gpt2_read, files.gpt2_write, files.peft_read, files.peft_write)},
    **{f.__name__: f for f in (files.blocks, files.gguf_read, files.gguf_adapter)},
    "grouped_attention": attention,
    **dict.fromkeys(("model", "llama"), of_model(model.model)),
    **dict.fromkeys(("generate", "llama_generate"), of_model(model.generate)),
    **dict.fromkeys(("train", "llama_train"), of_model(training.train)),
}
