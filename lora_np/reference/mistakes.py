"""Known mistakes of ports, most of which `mutants.py` cannot derive from the plain program.

Each entry is a sentence, which the checker prints, and one or more changes. A change has three parts: the name of a
function of `plain/`, with the module only if that is `cases`; the correct text, which occurs exactly once in the
function's source; and the incorrect text. In the incorrect text, … stands for the correct text, and functions of
`wrong.py` may be called.
"""

from .plain import cases, files, model, operations, training
from .training_mistakes import TRAINING_MISTAKES

# Functions, and texts in them, that several mistakes change.
LOSS, LOSS_BACKWARD, CHUNKS = "cross_entropy", "cross_entropy_backward", "linear_cross_entropy"
ATTENTION, MLP = "attention_forward", "mlp_forward"
SCALE = "scale", "alpha / math.sqrt(r) if rslora else alpha / r"
MASKED, OVER_KEYS = ("attention", "-np.inf"), ("attention", "softmax(scores)")
MAXIMUM = "softmax", "x.max(axis=-1, keepdims=True)"
NORMS = "direction", "np.sqrt((V**2).sum(axis=1))"
DROPPED = "dropout_backward", "* mask"
BASE_OF_DORA = "dora", "linear(x - dropped, weight, bias)"
ADDED, ADDED_TO_MLP = (ATTENTION, "take(x, at) + branch"), (MLP, "x + branch")
QUERIES = ATTENTION, "positions if at is None else at, sizes"
GATE = "gelu", "0.5 * (1.0 + np.tanh(u))"
SLOPE = "gelu", "g + 2.0 * y * (1.0 - g) * du"
N = LOSS, "max(1, real.sum())"
N_BACKWARD = LOSS_BACKWARD, "max(1, real.sum())"
ID_GRADIENT = "embedding_backward", "products(one_hot(ids, len(weight)), grad_y).sum(axis=0)"
READ = "read_at", 't["lengths"][:, None] - 1'
TAKEN = "take", "np.take_along_axis(x, at[:, :, None], axis=1)"
START = "forward", "if past else 0"
ATTENTION_BRANCH = ATTENTION, 'op.dropout(layer(context, f"{attn}.o_proj", settings, t, acts), t.get(f"mask.{attn}"))'
MLP_BRANCH = MLP, 'op.dropout(layer(inner, f"{mlp}.down_proj", settings, t, acts), t.get(f"mask.{mlp}"))'
EMBEDDED = "forward", 'x = acts["tok_emb"] = op.embedding(t["ids"], t["tok_emb.weight"])'
TURNED_KEYS = 'k = turned(k, f"{attn}.k_rotated", positions, sizes, acts)'
PAST = ATTENTION, "if past:"
FIRST_ROW = 'past = past | {f"saved.{attn}": [np.broadcast_to(a[:1], a.shape) for a in past[f"saved.{attn}"]]}'
FIRST_BLOCK = 'past = past | {f"saved.{attn}": past["saved.blocks.0.attn"]}'

TABLE = (
    # the most frequent mistakes, and those that take precedence over others with the same effect
    ("the bias is not added", "linear", "y + bias", "y"),
    ("subnormal numbers are flushed to 0", "linear", "x @", "np.where(np.abs(x) < np.finfo(x.dtype).tiny, 0, x) @"),
    ("the B's are joined without scaling; each should be multiplied by its scale / the joint scale", "joined",
     " * (scales[layer] / scales[adapted[0]])", ""),
    ("the scale is α; it should be α/r", "scale", "else alpha / r", "else alpha"),
    ("the scale α/r is missing", *SCALE, "1.0"),
    ("the scale is α/r; with rslora it should be α/√r", *SCALE, "alpha / r"),
    ("the scores are not divided by √D", "attention", " / math.sqrt(D)", ""),
    ("the queries' positions are not used: each row has its own", "attention", "if positions is None:", "if True:"),
    ("there is no causal mask", "attention", "np.where(allowed, products_of_heads, -np.inf)", "products_of_heads"),
    ("the causal mask is one off: a token sees the one after it", "attention", "<= positions[:, None, :, None]",
     "… + 1"),
    ("x is not added to attention's output", *ADDED, "branch"),
    ("x is not added to the MLP's output", *ADDED_TO_MLP, "branch"),
    # layer norm and RMS norm
    ("the variance is mean(x²) − mean(x)², which cancels; it should be mean((x − mean)²)", "layer_norm",
     "((x - mean) ** 2).mean(axis=-1, keepdims=True)", "(x**2).mean(axis=-1, keepdims=True) - mean**2"),
    ("RMS norm subtracts the mean; it should not", "rms_norm", "inv_rms = 1.0",
     "x = x - x.mean(axis=-1, keepdims=True); …"),
    ("RMS norm subtracts the mean after inv_rms is computed; it should not", "rms_norm", "x * inv_rms",
     "(x - x.mean(axis=-1, keepdims=True)) * inv_rms"),
    ("RMS norm's gradient has layer norm's term − mean(d); no mean is subtracted", "rms_norm_backward", "(d - ",
     "(d - d.mean(axis=-1, keepdims=True) - "),
    # GELU, SwiGLU and softmax
    ("this is the erf GELU; it should be the tanh form", *GATE, "wrong.normal_share(x)", *SLOPE,
     "g + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi).item()"),
    ("this is the sigmoid GELU, x σ(1.702 x); it should be the tanh form", *GATE, "1.0 / (1.0 + np.exp(-1.702 * x))",
     *SLOPE, "g + 1.702 * y * (1.0 - g)"),
    ("this is SiLU, x σ(x), not GELU", *GATE, "1.0 / (1.0 + np.exp(-x))", *SLOPE, "g + y * (1.0 - g)"),
    ("this is ReLU, not GELU", *GATE, "(x > 0).astype(x.dtype)", *SLOPE, "g"),
    ("0.044715 x³ is missing in GELU", "gelu", "0.044715", "0.0"),
    ("1 − tanh u is in GELU's slope; the derivative of tanh is 1 − tanh²", *SLOPE, "g + x * (1.0 - g) * du"),
    ("1 − g² is in GELU's slope; the derivative of tanh is 1 − tanh², of tanh u", *SLOPE,
     "g + 0.5 * x * (1.0 - g**2) * du"),
    ("softmax's gradient is p (1 − p) dp, its diagonal alone", "softmax_backward",
     "(grad_probs - (grad_probs * probs).sum(axis=-1, keepdims=True))", "grad_probs * (1.0 - probs)"),
    ("the maximum is not subtracted before exp", "softmax", "x - x.max(axis=-1, keepdims=True)", "x"),
    ("the maximum of the whole array is subtracted; it should be each row's maximum", *MAXIMUM, "x.max()"),
    ("the search for a row's maximum starts at 0; it should start at −inf", "softmax", "x.max(axis=-1, keepdims=True)",
     "np.maximum(…, 0.0)"),
    ("the maximum is subtracted in the numerator only; the denominator sums exp(x)", "softmax", "/ exponentials.sum(",
     "/ np.exp(x).sum("),
    # attention and rope
    ("the heads are interleaved: head h owns columns hD to (h+1)D − 1, not every H-th", "split_heads",
     "-1, D).transpose(0, 2, 1, 3)", "D, x.shape[-1] // D).transpose(0, 3, 1, 2)", "join_heads",
     "x.transpose(0, 2, 1, 3)", "x.transpose(0, 2, 3, 1)"),
    ("the scores are divided by √C; it should be √D, of one head", "attention", "/ math.sqrt(D)",
     "/ math.sqrt(q.shape[-1])"),
    ("with fewer queries than keys, query i is at position i + Tk − Tq, not at i", "attention",
     "np.arange(k.shape[1] - q.shape[1], k.shape[1])", "np.arange(q.shape[1])"),
    ("masked scores are −1e9; they should be −inf", *MASKED, "-1e9"),
    ("masked scores are −10000; they should be −inf", *MASKED, "-1e4"),
    ("masked scores are the lowest number of the precision; they should be −inf", *MASKED, "np.finfo(q.dtype).min"),
    ("the mask is applied after the softmax: rows no longer sum to 1", *OVER_KEYS,
     "np.where(allowed, softmax(products_of_heads), 0.0)"),
    ("the softmax is over the queries; it should be over the keys", *OVER_KEYS,
     "softmax(scores.swapaxes(-1, -2)).swapaxes(-1, -2)"),
    ("the gradient of probs is 0 at masked keys; it should be grad.context vᵀ there as well", "attention_backward",
     "above @ values.transpose(0, 1, 3, 2)", "… * (probs > 0)"),
    ("numbers 2j and 2j + 1 of a head are rotated together; it should be j and j + D/2", "rope",
     "-1, 2, cos.shape[-1])", "-1, cos.shape[-1], 2).swapaxes(-1, -2)", "rope", "axis=-2)", "axis=-1)"),
    ("the angles are θ^(−2j/C), with the width of all heads; it should be D, of one head", "cases.rope",
     'float(t["theta"])', '… ** (settings["head_size"] / t["x"].shape[-1])'),
    ("the angles are computed in float32; they should be in float64", "rope_tables", "positions[..., None] * speeds",
     "(…).astype(np.float32).astype(np.float64)"),
    ("the cosines and sines are rounded to float32", "rope_tables", "np.cos(angles), np.sin(angles)",
     "np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)"),
    ("the frequencies are computed in float32; they should be in float64", "rope_tables",
     "theta ** (-2.0 * np.arange(D // 2) / D)", "(…).astype(np.float32)"),
    ("all rows of the batch are rotated by the first row's positions", "rope", "cos[:, :, None, :], sin[:, :, None, :]",
     "cos[:1, :, None, :], sin[:1, :, None, :]"),
    # embedding and cross-entropy
    ("an id that occurs several times is counted once; its gradients must add up", *ID_GRADIENT,
     "np.zeros_like(weight); grad_weight[ids] = grad_y"),
    ("an id's gradient is the mean over its occurrences; it should be the sum", *ID_GRADIENT,
     "… / np.maximum(1, rows(one_hot(ids, len(weight))).sum(axis=0))[:, None]"),
    ("id 0 gets no gradient", *ID_GRADIENT, "… * (np.arange(len(weight)) > 0)[:, None]"),
    ("the embedding is multiplied by √C", "embedding", "weight[ids]", "… * weight.shape[1] ** 0.5"),
    ("the embedding is multiplied by √C before the first block", *EMBEDDED, "…; x = x * x.shape[-1] ** 0.5"),
    ("the embeddings of padding are 0; a language model treats padding like any token", *EMBEDDED,
     '…; x = x * (np.arange(x.shape[1]) < t["lengths"][:, None])[:, :, None]'),
    ("the targets are shifted again; they are already shifted", LOSS, "real = ",
     "targets = wrong.shifted(targets, ignore_index); real = ", LOSS_BACKWARD, "real = ",
     "targets = wrong.shifted(targets, ignore_index); real = "),
    ("all negative targets are ignored; only ignore_index should be", LOSS, "targets != ignore_index", "targets >= 0",
     LOSS_BACKWARD, "targets != ignore_index", "targets >= 0"),
    ("the mean is over all targets; ignored ones should not count", *N, "real.size", *N_BACKWARD, "real.size"),
    ("the mean is over all targets in the loss alone", *N, "real.size"),
    ("the mean is over all targets in the gradient alone", *N_BACKWARD, "real.size"),
    ("the loss is divided by the batch's rows; it should be divided by its real targets", *N, "len(real)", *N_BACKWARD,
     "len(real)"),
    ("the gradient is divided by the batch's rows; it should be divided by its real targets", *N_BACKWARD, "len(real)"),
    *((f"the loss is −log(p + {eps:g}); it should be log Σ exp(x) − x_target", LOSS,
       "log_sums - chosen", f"-np.log(np.exp(chosen - log_sums) + {eps})")
      for eps in (1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-12)),
    ("the loss is the sum over targets; it should be the mean", *N, "1", *N_BACKWARD, "1"),
    ("the loss is in bits; it should be in nats", *N, "… / np.log(2.0)"),
    ("the loss is the mean of the chunks' means; chunks should be weighted by their targets", CHUNKS,
     "share * cross_entropy(", "1 / -(-len(at) // chunk) * cross_entropy("),
    ("loss and gradients are those of the mean of the chunks' means; chunks should be weighted by their targets",
     CHUNKS, "len(some) / len(at)", "1 / -(-len(at) // chunk)"),
    ("the last, shorter chunk is left out", CHUNKS, "range(0, len(at)", "… - len(at) % chunk"),
    ("the last, shorter chunk has no gradient", CHUNKS, "backward(share * grad_loss",
     "backward((len(some) == chunk) * share * grad_loss"),
    # dropout and adapters
    ("the mask is not applied", "dropout", "mask is not None", "False", "dropout_backward", "mask is not None",
     "False"),
    ("the mask is used as 0 and 1; kept entries must be divided by 1 − p", "dropout", "x * mask", "x * (mask > 0)",
     *DROPPED, "* (mask > 0)"),
    ("in the backward pass, the mask is used as 0 and 1; kept entries must be divided by 1 − p", *DROPPED,
     "* (mask > 0)"),
    ("s is missing in grad.lora_B", "lora_backward", "products(grad_y, su)", "products(grad_y, su / s)"),
    ("s is missing in the adapter's part of grad.x", "lora_backward", "inner @ lora_A", "inner / s @ lora_A"),
    ("the scale α/r is applied twice", "scale", "return alpha / math.sqrt(r) if rslora else alpha / r",
     "return (alpha / math.sqrt(r) if rslora else alpha / r) ** 2"),
    ("α/r is an integer division", "scale", "else alpha / r", "else alpha // r"),
    ("the scale is √r, without α: in C, a / b ? c : d is (a / b) ? c : d", *SCALE, "math.sqrt(r)"),
    ("the scale is 1/r; it should be α/r", *SCALE, "1.0 / r"),
    ("DoRA's norms are those of V's columns; they should be those of its rows, one for each output", *NORMS,
     "np.resize(np.sqrt((V**2).sum(axis=0)), len(V))"),
    ("DoRA's norm is that of the whole matrix; it should be that of each row", *NORMS,
     "np.full(len(V), np.sqrt((V**2).sum()))"),
    ("the dropped part of x does not go through DoRA's base: (x − x̃) Wᵀ is missing", *BASE_OF_DORA,
     "(0.0 if bias is None else bias)"),
    ("the bias is part of h, so DoRA's m / ‖V‖ multiplies it as well", "dora", "dropped @ V.T",
     "linear(dropped, V, bias)", *BASE_OF_DORA, "linear(x - dropped, weight, None)"),
    ("m / ‖V‖ multiplies the columns of V; it should multiply the rows", "dora_delta", "(m / norm)[:, None]",
     "np.resize(m / norm, V.shape[1])"),
    # the model
    ("all layers have the first one's r and α; each has its own", "arrays_of", 'of = adapter["layers"][name]',
     'of = next(iter(adapter["layers"].values()))'),
    ("the adapter's rslora is ignored: the scale should be α/√r", "arrays_of", 'adapter["rslora"]', "False"),
    ("the adapter's mask is not applied", "arrays_of", 't.get(f"mask', '{}.get(f"mask'),
    ("the adapter's rslora is ignored in its delta: the scale should be α/√r", "merged", "of_kind(weight, *arrays, s)",
     'of_kind(weight, *arrays, s / op.scale(len(arrays[0]), 1.0, settings["adapter"]["rslora"]) / len(arrays[0]))',
     "cases.lora", "op.lora_delta(weight, A, B, s)", 'op.lora_delta(weight, A, B, settings["alpha"] / settings["r"])'),
    ("all adapters use the first adapter's dropout mask; each has its own", "arrays_of", "mask.{name}.adapter",
     "mask.{wrong.first_alike(name, settings, t)}.adapter"),
    ("the classifier reads the last position, even if it is padding; it should read lengths − 1", *READ,
     't["lengths"][:, None] * 0 + t["ids"].shape[1] - 1'),
    ("the classifier reads the first position; it should read lengths − 1", *READ, 't["lengths"][:, None] * 0'),
    ("the classifier reads position lengths; it should read lengths − 1", *READ,
     'np.minimum(t["lengths"][:, None], t["ids"].shape[1] - 1)'),
    ("the classifier reads position lengths of all rows as one array; it should read lengths − 1", *TAKEN,
     "op.rows(x)[(at + 1 + x.shape[1] * np.arange(len(x))[:, None]) % (len(x) * x.shape[1])]"),
    ("all rows are read from the first row: the row's offset b · T is missing", *TAKEN, "op.rows(x)[at]"),
    ("the attention ignores the position of the classifier's query, so the query sees the padding after it", ATTENTION,
     'sizes["n_heads"], at)', 'sizes["n_heads"], None)'),
    ("the embedding's mask is applied before the positions are added", "forward",
     'op.dropout(x + acts["pos_emb"], t.get("mask.embed"))', 'op.dropout(x, t.get("mask.embed")) + acts["pos_emb"]'),
    ("the mask of attention's branch is applied after x is added; it belongs to the branch", *ATTENTION_BRANCH,
     'layer(context, f"{attn}.o_proj", settings, t, acts)', *ADDED, 'op.dropout(…, t.get(f"mask.{attn}"))'),
    ("the mask of the MLP's branch is applied after x is added; it belongs to the branch", *MLP_BRANCH,
     'layer(inner, f"{mlp}.down_proj", settings, t, acts)', *ADDED_TO_MLP, 'op.dropout(…, t.get(f"mask.{mlp}"))'),
    ("the MLP's branch has the mask of attention's", MLP, "mask.{mlp}", "mask.{block}.attn"),
    ("attention's branch has the mask of the MLP's", ATTENTION, "mask.{attn}", "mask.{block}.mlp"),
    ("the queries of new tokens are rotated by their place among the new tokens; it should be their place in the text",
     ATTENTION, "positions if at is None else at, sizes", "(positions if at is None else at) - start, sizes"),
    ("the queries are not rotated", *QUERIES, "0 * (positions if at is None else at), sizes"),
    ("the values are rotated as well", ATTENTION, "    if past:",
     '    if "rope_theta" in sizes:\n        v = turned(v, "saved.v", positions, sizes, acts)\n…'),
    ("the values are rotated as well, in v_proj itself", ATTENTION, TURNED_KEYS,
     '…\n        v = acts[f"{attn}.v_proj"] = turned(v, "saved.v", positions, sizes, acts)'),
    ("x at the last position is added to the classifier's attention; it should be x at the query's position", *ADDED,
     "(x if at is None else x[:, -1:]) + branch"),
    ("x at position 0 is added to the classifier's attention; it should be x at the query's position", *ADDED,
     "(x if at is None else x[:, :1]) + branch"),
    ("the block's input is added to the MLP's output; it should be attention's residual", *ADDED_TO_MLP,
     "wrong.input_of(block, acts) + branch"),
    ("RoPE's heads have the size C/H; it should be head_size", "turned", 'sizes["head_size"]',
     'sizes["d_model"] // sizes["n_heads"]'),
    ("the MLP's norm reads the block's input; it should read attention's residual", MLP, "norm(x,",
     "norm(wrong.input_of(block, acts),"),
    ("the last norm is missing", "norm", "acts[name] = y", 'y = x if name in ("ln_f", "norm_f") else y; …'),
    ("the MLP reads x; it should read the normalised x", MLP, "acts)\n    if", "acts); h = x\n    if"),
    ("during generation, the positions of new tokens are too high by one", *START, "+ 1 …"),
    ("during generation, the positions of new tokens are too low by one", *START, "- 1 …"),
    ("during generation, keys are cached before they are rotated, and never rotated", ATTENTION, "    if past:",
     '    if past and "rope_theta" in sizes:\n        k = acts[f"{attn}.k_proj"]\n…'),
    ("the cached keys are already rotated, and rotated again with each new token", ATTENTION, TURNED_KEYS, "pass",
     ATTENTION, 'past[f"saved.{attn}"][1], k], axis=1)', '…\n    if "rope_theta" in sizes:\n        k = '
     'turned(k, f"{attn}.k_rotated", np.tile(np.arange(k.shape[1]), (len(k), 1)), sizes, acts)\n    if past:'),
    ("new keys and values are appended in memory; they should be appended in each row", ATTENTION,
     'np.concatenate([past[f"saved.{attn}"][1], k], axis=1)', 'wrong.joined(past[f"saved.{attn}"][1], k)', ATTENTION,
     'np.concatenate([past[f"saved.{attn}"][2], v], axis=1)', 'wrong.joined(past[f"saved.{attn}"][2], v)'),
    ("the adapter is left out once keys and values are cached", "generate", "forward(settings, t",
     'forward(settings | ({"adapter": None} if past else {}), t'),
    ("each row uses the first row's cached keys and values", *PAST, f"…\n        {FIRST_ROW}"),
    ("each block uses the first block's cached keys and values", *PAST, f"…\n        {FIRST_BLOCK}"),
    ("each row continues with the first row's token", "generate", "np.argmax(logits, axis=-1)",
     "np.full(len(logits), logits[0].argmax())"),
    ("the next token is chosen by the first position's logits; it should be the last position's", "generate",
     '["logits"][:, -1]', '["logits"][:, 0]'),
    ("each new token is read without the text before it", "generate", '{"ids": ids}, past)', '{"ids": ids}, None)'),
    ("the margin is between the two smallest logits", "generate", "largest[:, -1] - largest[:, -2]",
     "largest[:, 0] - largest[:, 1]"),
    ("the merged model still has its adapter, so the adapter counts twice", "model", '{"adapter": None}', "{}"),
    ("dropout masks are applied in the merged model; it is evaluated without them", "model",
     'if not name.startswith("mask.")', "if True"),
    ("a token is penalised each time it occurs in the text; it should be penalised once", "sample",
     "logits / repetition_penalty, logits * repetition_penalty",
     "logits / wrong.powers(repetition_penalty, ids, logits), logits * wrong.powers(repetition_penalty, ids, logits)"),
    ("the probabilities are not renormalised after top-p", "sample", "probs = softmax(x)",
     "… if top_p is None else p * (x > -np.inf)"),
    ("the temperature is applied after top-k and top-p; it should be applied before", "sample", "x = x / temperature",
     "", "sample", "probs = softmax(x)", "probs = softmax(x / temperature)"),
    ("top-p uses the probabilities from before top-k", "sample", "if top_k is not None:", "p = softmax(x)\n    …",
     "sample", "        p = softmax(x)\n", ""),
    ("top-p leaves out the token that crosses top_p", "sample", "before >= top_p", "before + p > top_p"),
    ("the token is drawn from sums in the order of the probabilities; it should be the order of the ids", "sample",
     "(sums <= uniform[:, None] * sums[:, -1:]).sum(axis=-1)", "wrong.drawn_by_size(probs, uniform)"),
    ("the sums from which the token is drawn lack its own probability", "sample", "(sums <=", "(sums - probs <="),
    ("the positions run on from row to row; they should start again in each", ATTENTION,
     "np.tile(np.arange(start, start + x.shape[1]), (len(x), 1))",
     "start + np.arange(x.shape[0] * x.shape[1]).reshape(x.shape[:2])"),
    ("SwiGLU's gradient of gate has the sigmoid's slope in place of SiLU's", "swiglu_backward",
     "(sigma + gate * sigma * (1.0 - sigma))", "(sigma * (1.0 - sigma))"),
    *TRAINING_MISTAKES,
)  # fmt: skip
FUNCTIONS = {f"cases.{name}": function for name, function in vars(cases).items()}
FUNCTIONS |= vars(files) | vars(training) | vars(model) | vars(operations)  # the last has precedence
MISTAKES = {  # sentence -> its changes, each a function, the correct text and the incorrect text
    sentence: [(FUNCTIONS[name], *change) for name, *change in zip(texts[::3], texts[1::3], texts[2::3])]
    for sentence, *texts in TABLE
}
