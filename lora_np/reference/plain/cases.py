"""The plain program's outputs for each kind of case, as functions of the case's settings and inputs."""

from . import files, model, training
from . import operations as op


def gradients(names, grads):
    """The gradients from a backward pass, keyed by their names in the specification."""
    return {f"grad.{name}": grad for name, grad in zip(names, grads)}


def linear(settings, t):
    grads = op.linear_backward(t["grad.y"], t["x"], t["weight"])
    return {"y": op.linear(t["x"], t["weight"], t.get("bias")), **gradients(("x", "weight", "bias"), grads)}


def layer_norm(settings, t):
    y, x_hat, inv_std = op.layer_norm(t["x"], t["weight"], t["bias"], settings["eps"])
    grads = op.layer_norm_backward(t["grad.y"], t["x"], t["weight"], x_hat, inv_std)
    return {"inv_std": inv_std[..., 0], "x_hat": x_hat, "y": y, **gradients(("x", "weight", "bias"), grads)}


def rms_norm(settings, t):
    y, x_hat, inv_rms = op.rms_norm(t["x"], t["weight"], settings["eps"])
    grads = op.rms_norm_backward(t["grad.y"], t["x"], t["weight"], x_hat, inv_rms)
    return {"inv_rms": inv_rms[..., 0], "x_hat": x_hat, "y": y, **gradients(("x", "weight"), grads)}


def gelu(settings, t):
    y, slope = op.gelu(t["x"])
    return {"y": y, "slope": slope, "grad.x": op.gelu_backward(t["grad.y"], t["x"], slope)}


def gelu_erf(settings, t):
    y, slope = op.gelu_erf(t["x"])
    return {"y": y, "slope": slope, "grad.x": op.gelu_backward(t["grad.y"], t["x"], slope)}


def swiglu(settings, t):
    grads = op.swiglu_backward(t["grad.y"], t["gate"], t["up"])
    return {"y": op.swiglu(t["gate"], t["up"]), **gradients(("gate", "up"), grads)}


def softmax(settings, t):
    probs = op.softmax(t["x"])
    return {"probs": probs, "grad.x": op.softmax_backward(t["grad.probs"], probs)}


def attention(settings, t):
    q, k, v, H = t["q"], t["k"], t["v"], settings["n_heads"]
    context, probs, scores = op.attention(q, k, v, H, t.get("positions"))
    grads = op.attention_backward(t["grad.context"], q, k, v, probs, H)
    outputs = {"scores": scores, "probs": probs, "context": context}
    return outputs | gradients(("v", "probs", "scores", "q", "k"), grads)


def encoder_attention(settings, t):
    return attention(settings, t | {"positions": t["lengths"][:, None] - 1})


def mean_pool(settings, t):
    grad_x = op.mean_pool_backward(t["grad.y"], t["lengths"], t["x"].shape[1])
    return {"y": op.mean_pool(t["x"], t["lengths"]), "grad.x": grad_x}


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
    loss, *grads = op.linear_cross_entropy(t["x"], t["weight"], t["targets"], **settings)
    return {"loss": loss, **gradients(("x", "weight"), grads)}


def token_log_probs(settings, t):
    given = t["x"], t["weight"], t["targets"], settings["ignore_index"]
    grads = op.token_log_probs_backward(t["grad.log_probs"], *given)
    return {"log_probs": op.token_log_probs(*given), **gradients(("x", "weight"), grads)}


def dropout(settings, t):
    return {"y": op.dropout(t["x"], t["mask"]), "grad.x": op.dropout_backward(t["grad.y"], t["mask"])}


def lora(settings, t):
    x, weight, mask = t["x"], t["weight"], t.get("mask")
    A, B, s = t["lora_A"], t["lora_B"], op.scale(settings["r"], settings["alpha"], settings["rslora"])
    y, su = op.lora(x, weight, t["bias"], A, B, s, mask)
    grads = op.lora_backward(t["grad.y"], x, weight, A, B, s, mask, su)
    delta = op.lora_delta(weight, A, B, s)
    outputs = {"su": su, "y": y, "delta": delta, "merged": weight + delta}
    return outputs | gradients(("x", "weight", "bias", "lora_B", "lora_A"), grads)


def dora(settings, t):
    x, weight, mask, m = t["x"], t["weight"], t.get("mask"), t["lora_magnitude_vector"]
    A, B, s = t["lora_A"], t["lora_B"], op.scale(settings["r"], settings["alpha"], settings["rslora"])
    y, norm, h, su = op.dora(x, weight, t["bias"], A, B, m, s, mask)
    grads = op.dora_backward(t["grad.y"], x, weight, A, B, m, s, mask, h, su, y, settings["norm_gradient"])
    delta = op.dora_delta(weight, A, B, m, s)
    outputs = {"norm": norm, "h": h, "su": su, "y": y, "delta": delta, "merged": weight + delta}
    return outputs | gradients(("x", "weight", "bias", "lora_magnitude_vector", "lora_B", "lora_A"), grads)


def qalora(settings, t):
    weight = files.expand(t["blocks"], "q4_1").astype(t["x"].dtype)
    A, B, s = t["lora_A"], t["lora_B"], op.scale(settings["r"], settings["alpha"], settings["rslora"])
    y, pooled, su = op.qalora(t["x"], weight, t["bias"], A, B, s, t["mask"])
    grads = op.qalora_backward(t["grad.y"], t["x"], weight, A, B, s, t["mask"], pooled, su)
    delta = op.qalora_delta(weight, A, B, s)
    merged = files.offsets_moved(t["blocks"], delta[:, ::32])
    outputs = {"weight": weight, "pooled": pooled, "y": y, "delta": delta, "merged": merged}
    return outputs | gradients(("x", "bias", "lora_B", "lora_A"), grads)


def sample(settings, t):
    probs, tokens = op.sample(t["logits"], t["ids"], t["uniform"], **settings)
    return {"probs": probs, "tokens": tokens}


def clip(settings, t):
    norm, clipped = training.clip(training.under("grad.", t), settings["max_norm"])
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
    operations = linear, layer_norm, rms_norm, gelu, swiglu, softmax, attention, rope, embedding, cross_entropy
    operations += linear_cross_entropy, dropout, lora, dora, qalora, sample, clip, schedule
    operations += gelu_erf, mean_pool, encoder_attention, token_log_probs
    in_training = training.adamw, training.accumulate, training.spectrum, training.nf4, training.grpo, training.dpo
    in_files = files.gpt2_read, files.gpt2_write, files.peft_read, files.peft_write
    in_files += files.blocks, files.gguf_read, files.gguf_adapter
    return {
        **{function.__name__: function for function in (*operations, *in_training, *in_files)},
        "grouped_attention": attention,
        **dict.fromkeys(("model", "llama", "bert"), of_model(model.model)),
        **dict.fromkeys(("generate", "llama_generate"), of_model(model.generate)),
        **dict.fromkeys(("train", "llama_train"), of_model(training.train)),
    }


PLAIN = programs()
