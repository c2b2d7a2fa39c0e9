"""Bugs planted by hand: what no small change of a line says, and what other tests than the gradient check find.

That the reference vectors show the mistakes in `mistakes.py` is tested in test_reference.py.
"""

import functools
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from lora_np.reference.cases import reference_cases
from lora_np.reference.gradcheck import ALONE

from . import (
    test_blocks,
    test_compress,
    test_compressed_base,
    test_generate,
    test_llama_import,
    test_model,
    test_vectors,
)
from .tiny import CONFIGS, random_adapter, random_batch, random_params


class Bug(NamedTuple):
    what: str
    where: str  # what the function's name begins with
    right: str  # code that exists there once, as ast.unparse writes it
    wrong: str
    found_by: object = None  # the row that shows it, None: any; or a test without arguments that fails


# fmt: off
BACKWARD_BUGS = [  # that the gradient check finds
    Bug("rows flattened column by column", "ops.linear", "= dy.reshape(", "= dy.swapaxes(0, 1).reshape(", "weight"),
    Bug("dweight averaged over rows", "ops.linear", "drows.T @", "drows.T / len(drows) @", "weight"),
    Bug("the mean of all rows", "ops.layer_norm", "through_mean = row_mean(dx)", "through_mean = dx.mean()", "x"),
    Bug("the unbiased variance", "ops.layer_norm", "(dx, cache.x_hat)", "(dx, cache.x_hat) * C / (C - 1)", "x"),
    Bug("inv_std without ε", "ops.layer_norm", "inv_std=inv_std", "inv_std=1 / x.std(axis=-1, keepdims=True)", "x"),
    Bug("the diagonal alone", "ops.softmax", "subtract(dp, expected,", "multiply(dp, 1.0 - p,", "x"),
    Bug("digits lost", "ops.softmax", "np.empty_like(dprobs, order='C')", "np.empty_like(dprobs, np.float16)", "x"),
    Bug("the gate of ReLU", "ops.gelu", "slope(x_piece, g, y_piece)", "slope(x_piece, x_piece > 0, y_piece)", "x"),
    Bug("a repeated id counted once", "ops.embedding", "np.add.reduceat(dy.reshape(-1, dy.shape[-1])[order], starts)",
        "dy.reshape(-1, dy.shape[-1])[order][starts]", "weight"),
    Bug("a tied head's gradient added twice", "ops.embedding", "is None else into", "is None else 2.0 * into"),
    Bug("class 0 taken for padding", "ops.cross_entropy", "(counts / counts.", "((targets > 0) / counts.", "logits"),
    Bug("ignored targets count", "ops.cross_entropy", "(counts / counts.", "(np.ones(real.shape) / counts.", "logits"),
    Bug("masked but not scaled", "ops.dropout", "dy * cache.mask", "dy * (cache.mask > 0)", "x"),
    Bug("heads not transposed", "ops.attention", "split_heads(dcontext, n_heads)",
        "dcontext.reshape(*probs.shape[:3], -1)", "v"),
    Bug("columns dealt out to the heads in turn", "ops.attention", "n_heads, C // n_heads).transpose(0, 2, 1, 3)",
        "C // n_heads, n_heads).transpose(0, 3, 1, 2)", "v"),
    Bug("scaled by the width", "ops.attention", "sqrt(d_out.shape[-1])", "sqrt(dcontext.shape[-1])", "k"),
    Bug("softmax of something else", "ops.attention", "SoftmaxCache(probs)", "SoftmaxCache(probs * probs)", "scores"),
    Bug("no dq without dv", "ops.attention", "if not cache.wanted", "if 'v' not in cache.wanted", ALONE),
    Bug("one operand for each gradient", "ops.wanted", "'').split()", "'').split()[:1]", ALONE),
    Bug("dA masked only beside dB", "ops.low_rank", "dropout_forward(x, mask)[0]\n",
        "dropout_forward(x, mask if 'B' in wanted else None)[0]\n", ALONE),
    Bug("the base's dx through V", "adapters.dora", "x=left_out, weight=weight", "x=left_out, weight=V", "x"),
    Bug("factors of another seed", "adapters.vera", "cache.seed, dy.dtype", "cache.seed + 1, dy.dtype", "x"),
    Bug("stops at the highest wanted parameter", "model.", "lowest = min((", "lowest = max(("),
    Bug("stops one layer early", "model.", "if lowest <", "if lowest + 1 <", ALONE),
    Bug("layers of one depth", "model.", "layer.operation != previous", "layer.operation == 'layer_norm'", ALONE),
    Bug("v's gradient never asked for", "model.", "for name in 'qkv' if", "for name in 'qk' if"),
    Bug("a tied head at the input", "model.", "< module.depth", "< layers[module.parameters].depth"),
    Bug("a tied head never asked for dW", "model.", "get(module.parameters,", "get(module.name,"),
    Bug("gradients from before", "model.", "({} if grads is None",
        "({name: np.ones_like(array) for name, array in cache.call.params.items()} if grads is None", ALONE),
    Bug("gradients of another batch", "model.", "loss_cache).dlogits if", "loss_cache).dlogits[::-1] if"),
    Bug("divided by the number of targets again", "model.", "linear_cross_entropy_backward(1.0,",
        "linear_cross_entropy_backward(1.0 / n_targets,"),
    Bug("divided by the number of texts again", "model.", "ops.cross_entropy_backward(1.0,",
        "ops.cross_entropy_backward(1.0 / n_targets,"),
    # Llama's operations
    Bug("the mean of all rows", "ops.rms_norm", "row_mean(dx, cache.x_hat)", "(dx * cache.x_hat).mean()", "x"),
    Bug("the mean subtracted, as in a layer norm", "ops.rms_norm", "dx *= cache.inv_rms",
        "dx = (dx - row_mean(dx)) * cache.inv_rms", "x"),
    Bug("ε forgotten", "ops.rms_norm", "inv_rms=inv_rms if", "inv_rms=1 / np.sqrt(row_mean(x, x)) if", "x"),
    Bug("ε outside the root", "ops.rms_norm", "inv_rms=inv_rms if",
        "inv_rms=1 / (np.sqrt(row_mean(x, x)) + eps) if", "x"),
    Bug("x in place of x̂", "ops.rms_norm", "x_hat=x_hat if", "x_hat=x if", "weight"),
    Bug("dweight not summed over rows", "ops.rms_norm", "'nc,nc->c'", "'nc,nc->nc'", "weight"),
    Bug("dweight averaged over rows", "ops.rms_norm", "'nc,nc->c'", "',nc,nc->c', C / dy.size", "weight"),
    Bug("neighbours turned together", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy.reshape(*dy.shape[:-1], -1, cache.cos.shape[-1], 2).swapaxes(-1, -2).reshape(dy.shape), cache.cos, "
        "-cache.sin).reshape(*dy.shape[:-1], -1, 2, cache.cos.shape[-1]).swapaxes(-1, -2).reshape(dy.shape)", "x"),
    Bug("turned by the angles of the position before", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy, np.roll(cache.cos, 1, -2), -np.roll(cache.sin, 1, -2))", "x"),
    Bug("turned by the angles of the first row", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy, cache.cos[:1], -cache.sin[:1])", "x"),
    Bug("frequencies in reverse order", "ops.rope", "rotate(dy, cache.cos, -cache.sin)",
        "rotate(dy, cache.cos[..., ::-1], -cache.sin[..., ::-1])", "x"),
    Bug("σ′ alone", "ops.swiglu", "slope *= silu", "slope *= 0.0 * silu + a", "gate"),
    Bug("σ′ = 1 − σ", "ops.swiglu", "slope *= silu", "slope *= a", "gate"),
    Bug("a(1 − σ) forgotten", "ops.swiglu", "slope *= silu", "slope *= 0.0 * silu", "gate"),
    Bug("the slope of ReLU", "ops.swiglu", "slope *= u", "slope[...] = (a > 0) * u", "gate"),
    Bug("the sigmoid in place of silu", "ops.swiglu", "np.multiply(silu, u, out=y_piece)",
        "np.multiply(silu, u, out=y_piece)\n        silu /= a", "up"),
    Bug("query heads dealt out to the key heads in turn", "ops.attention", "d_out = stack_groups(d_out, n_kv_heads)",
        "d_out = stack_groups(d_out.reshape(len(d_out), -1, n_kv_heads, *d_out.shape[2:]).swapaxes(1, 2), n_kv_heads)",
        "v"),
    Bug("dv of each group's first head alone", "ops.attention",
        "stack_groups(probs, n_kv_heads).transpose(0, 1, 3, 2) @ d_out",
        "stack_groups(probs, n_kv_heads)[..., :probs.shape[2], :].transpose(0, 1, 3, 2) "
        "@ d_out[..., :probs.shape[2], :]", "v"),
    Bug("dk of each group's first head alone", "ops.attention",
        "stacked.transpose(0, 1, 3, 2) @ stack_groups(cache.q, n_kv_heads)",
        "stacked[..., :probs.shape[2], :].transpose(0, 1, 3, 2) "
        "@ stack_groups(cache.q, n_kv_heads)[..., :probs.shape[2], :]", "k"),
    Bug("dv averaged over a group", "ops.attention", "dv = merge_heads(",
        "dv = n_kv_heads / n_heads * merge_heads(", "v"),
    Bug("dk averaged over a group", "ops.attention", "dk = merge_heads(",
        "dk = n_kv_heads / n_heads * merge_heads(", "k"),
    Bug("dv not summed over a group", "ops.attention",
        "dv = merge_heads(stack_groups(probs, n_kv_heads).transpose(0, 1, 3, 2) @ d_out)",
        "dv = merge_heads(probs.transpose(0, 1, 3, 2) @ unstack_groups(d_out, n_heads))", "v"),
    Bug("scaled by the key heads' width", "ops.attention", "sqrt(d_out.shape[-1])",
        "sqrt(d_out.shape[-1] * n_kv_heads)", "q"),
    Bug("the values of another key head", "ops.attention", "cache.v.transpose", "cache.v[:, ::-1].transpose", "q"),
    Bug("the keys of another head", "ops.attention", "stacked @ cache.k", "stacked @ cache.k[:, ::-1]", "q"),
    Bug("the softmax's gradient over the queries", "ops.attention", "softmax_backward(dprobs, SoftmaxCache(probs)).dx",
        "softmax_backward(dprobs.swapaxes(2, 3), SoftmaxCache(probs.swapaxes(2, 3))).dx.swapaxes(2, 3)", "q"),
    Bug("dweight of the first chunk alone", "ops.linear_cross", "np.add(dweight, grads.dweight, out=dweight)",
        "dweight", "weight"),
    Bug("the gradient of the mean of the chunks' means", "ops.linear_cross", "cross_entropy_backward(share,",
        "cross_entropy_backward(step / max(step, len(real)),", "x"),
    Bug("a chunk's gradient not weighted", "ops.linear_cross", "cross_entropy_backward(share,",
        "cross_entropy_backward(1.0,", "x"),
    Bug("the gradient of a mean over ignored rows too", "ops.linear_cross", "cross_entropy_backward(share,",
        "cross_entropy_backward(len(piece) / targets.size,", "x"),
    Bug("no gradient from the last chunk", "ops.linear_cross", "if wanted:", "if wanted and start + step < len(real):"),
    Bug("gradients in the rows from the chunk's start", "ops.linear_cross", "dx[piece]", "dx[start:start + len(piece)]",
        "x"),
    # Llama, and what it shares with GPT-2
    *(
        Bug(what, f"model.objective.{name}", "{table: dtable}", wrong)
        for name in ("loss_and_gradients", "token_log_probs")
        for what, wrong in (
            ("the head's gradient counted twice", "{table: 2.0 * dtable}"),
            ("a tied head's gradient under its own name", "{'head.weight': dtable}"),
        )
    ),
    Bug("a tied table's gradient replaced by the embedding's", "model.layers",
        "(grads.get(f'{module.parameters}.weight'),)", "(None,)"),
    Bug("the input of another block", "model.passes", "cache.inputs[i]", "cache.inputs[i - 1]"),
    Bug("recomputed without dropout", "model.passes", "again = cache._replace(",
        "again = cache._replace(call=cache.call._replace(masks={}), "),
    Bug("recomputed with other masks", "model.passes", "again = cache._replace(",
        "again = cache._replace(call=cache.call._replace("
        "masks={name: mask[::-1] for name, mask in cache.call.masks.items()}), "),
    Bug("recomputed without the positions that are read", "model.passes", "again = cache._replace(",
        "again = cache._replace(call=cache.call._replace(last=0 * cache.call.last), "),
    Bug("the first block's gradients lost", "model.passes", "elif dx is not None:", "elif dx is not None and i > 0:"),
    Bug("each block's gradients in a dict of its own", "model.passes", "backward_layers(again, grads, record)",
        "backward_layers(again, {}, record)"),
    Bug("a block's input written into", "model.operations", "return (x + branch, cache)",
        "return (np.add(x, branch, out=x), cache)"),
    Bug("dv turned as dk is", "model.llama", "back(f'{attn}.v_proj', dv)",
        "back(f'{attn}.v_proj', back(f'{attn}.k_rotated', dv))"),
    Bug("the gradient through the gate alone", "model.llama", "add(through_gate, through_up)",
        "add(through_gate, None)"),
    Bug("the gate's gradient through up's weight", "model.llama", "back(f'{mlp}.up_proj', dup)",
        "back(f'{mlp}.up_proj', dgate)"),
]


# fmt: on
# ------------------------------------------------------------------ the tests that find the others


@functools.cache
def cases():
    return reference_cases()


def vectors(kind):
    """Function that compares the reference vectors of a kind; without an array they are not the same, either."""

    def call():
        for id, entry in test_vectors.ENTRIES.items():
            if entry["kind"] == kind:
                try:
                    test_vectors.test_a_case_is_computed_again(id, cases())
                except KeyError as error:
                    raise AssertionError(f"{id} has no array {error}") from error

    return call


def in_a_folder(test, *arguments):
    """Function that calls a test with the arguments and a folder of its own."""

    def call():
        with TemporaryDirectory() as folder:
            test(*arguments, Path(folder))

    return call


def over(test, cases):
    """Function that calls a test with the arguments of each case."""

    def call():
        for case in cases:
            test(*case)

    return call


LANGUAGES = test_generate.LANGUAGES
BASE = random_params(test_compressed_base.CONFIGS["GPT-2"], "float32")

of_formulas, in_blocks, pooled = vectors("llama"), vectors("blocks"), vectors("qalora")
read_at_one_position = partial(
    test_model.test_a_classifier_is_the_language_model_read_at_one_position,
    *(CONFIGS["llama classifier"], random_params, random_batch, True),
)
in_chunks = partial(test_blocks.test_the_head_and_its_loss_in_chunks_are_those_of_all_logits, 2 * 13)
with_a_past = partial(
    test_generate.test_logits_with_a_past_are_those_without,
    *(LANGUAGES["H/K = 3"], random_params, random_adapter, float, 1e-12, "lora"),
)
sliding = partial(test_generate.test_a_text_longer_than_the_position_table_slides, LANGUAGES["H/K = 2"], random_params)
rows_apart = partial(
    test_generate.test_rows_with_adapters_of_their_own, LANGUAGES["H/K = 3"], random_params, random_adapter
)
added_offsets = over(test_compress.test_added_offsets, [*zip(range(5))])
into_offsets = partial(
    test_compressed_base.test_an_update_that_is_constant_in_blocks_leaves_q4_1_s_codes, BASE, "qalora", 0
)
quantised_again = partial(test_compressed_base.test_another_update_is_quantised_again_in_q4_1, BASE)
biased = {"tied": False, "attention_bias": True, "mlp_bias": True}
from_gguf = in_a_folder(test_llama_import.test_a_gguf_file_becomes_the_model, biased)
blocks_from_gguf = in_a_folder(test_llama_import.test_blocks_stay_blocks_and_compute_the_same)


# fmt: off
ELSEWHERE = [  # in what goes forward, with and without a past, and in files
    Bug("ε forgotten", "ops.rms_norm", "+ eps)", ")", of_formulas),
    Bug("ε outside the root", "ops.rms_norm", "np.sqrt(row_mean(x, x) + eps)", "(np.sqrt(row_mean(x, x)) + eps)",
        of_formulas),
    Bug("the variance, as in a layer norm", "ops.rms_norm", "np.sqrt(row_mean(x, x) + eps)",
        "np.sqrt(x.var(-1, keepdims=True) + eps)", of_formulas),
    Bug("frequencies θ^(−j/D)", "ops.rope", "-np.arange(0, head_size, 2)", "-np.arange(head_size // 2)", of_formulas),
    Bug("frequencies θ^(−2j/(D − 2))", "ops.rope", "2) / head_size", "2) / (head_size - 2)", of_formulas),
    Bug("every head with angles of its own", "ops.rope", "(cos[..., None, :], sin[..., None, :])",
        "(cos[..., None, :], sin[..., None, :] * np.arange(1, heads.shape[-3] + 1)[:, None])", of_formulas),
    Bug("the last block's query a position early", "model.operations.rope", "rope_tables(call.last[:, None],",
        "rope_tables(call.last[:, None] - 1,", read_at_one_position),
    Bug("the last block's query at position 0", "model.operations.rope", "rope_tables(call.last[:, None],",
        "rope_tables(0 * call.last[:, None],", read_at_one_position),
    Bug("positions from 1, except in a classifier's last block", "model.operations.rope",
        "consecutive_tables(0, x.shape[1]", "consecutive_tables(1, 1 + x.shape[1]", read_at_one_position),
    Bug("the last block's query sees the padding", "model.operations", "if module.one_position or ", "if ",
        read_at_one_position),
    Bug("query head h reads value head h mod K", "ops.attention.attend",
        "unstack_groups(stack_groups(probs, v.shape[1]) @ v, n_heads)",
        "probs @ np.tile(v, (1, n_heads // v.shape[1], 1, 1))", of_formulas),
    Bug("softmax over a group's heads too", "ops.attention.attend",
        "softmax(attention_scores(q, k, n_heads, positions))",
        "softmax(attention_scores(q, k, n_heads, positions)) / n_heads", of_formulas),
    Bug("no token sees itself, except the first", "ops.attention", "<= positions[..., None]",
        "<= np.maximum(0, positions[..., None] - 1)", of_formulas),
    Bug("k not turned", "model.llama", "k = run(f'{attn}.k_rotated', k)", "pass", of_formulas),
    Bug("gate and up of each other's weights", "model.llama", "gate = run(f'{mlp}.gate_proj', h)",
        "gate = run(f'{mlp}.up_proj', h)", of_formulas),
    Bug("the other norm first", "model.llama", "run(f'blocks.{i}.norm1', x)", "run(f'blocks.{i}.norm2', x)",
        of_formulas),
    Bug("the residual from behind the norm", "model.llama", "run(f'{attn}.residual', x, branch)",
        "run(f'{attn}.residual', h, branch)", of_formulas),
    Bug("ReLU for the gate", "ops.swiglu", "np.multiply(silu, u,", "np.multiply(np.maximum(a, 0), u,", of_formulas),
    Bug("the mean of the chunks' means", "ops.linear_cross", "share = len(piece) / max(1, len(real))",
        "share = 1 / -(-len(real) // step)", in_chunks),
    Bug("the last chunk dropped", "ops.linear_cross", "max(1, len(real)), step)", "max(1, len(real) - step + 1), step)",
        in_chunks),
    Bug("ignored rows counted", "ops.linear_cross", "share = len(piece) / max(1, len(real))",
        "share = len(piece) / targets.size", in_chunks),
    Bug("the targets from the chunk's start", "ops.linear_cross", "targets.reshape(-1)[piece]",
        "np.resize(targets[targets != ignore_index], len(piece))", in_chunks),
    # with a past
    Bug("positions from 0 in each piece", "model.operations.rope_decode", "consecutive_tables(start, start + T",
        "consecutive_tables(0, T", with_a_past),
    Bug("positions off by one after the first piece", "model.operations.rope_decode",
        "consecutive_tables(start, start + T", "consecutive_tables(start + (start > 0), start + (start > 0) + T",
        with_a_past),
    Bug("every token of a piece at its first position", "model.operations.rope_decode", "*tables",
        "*(np.repeat(table[:1], T, 0) for table in tables)", with_a_past),
    Bug("the default θ", "model.operations.rope", "= call.config\n    settings = (config.head_size, config.rope_theta",
        "= call.config\n    settings = (config.head_size, 10000.0", of_formulas),
    Bug("the default ε", "model.operations.rms_norm", "call.config.rms_norm_eps", "1e-06", of_formulas),
    Bug("keys and values exchanged", "model.operations.attention_decode", "q, keys, values", "q, values, keys",
        with_a_past),
    Bug("new keys over the first ones", "model.operations.attention_decode", "new = slice(-k.shape[1], None)",
        "new = slice(None, k.shape[1])", with_a_past),
    Bug("queries of the new keys alone", "model.operations.attention_decode", "q, keys, values",
        "q, keys[:, new], values[:, new]", with_a_past),
    Bug("logits of the first new token", "model.decoder.next_logits", "[:, -1]", "[:, 0]", with_a_past),
    Bug("the past lost where it grows", "model.decoder.with_room", "np.concatenate([array, more], axis=2)",
        "np.concatenate([more, array], axis=2)", with_a_past),
    Bug("the adapter lost", "model.decoder.make_decoder", "if adapter is not None", "if adapter is None", with_a_past),
    Bug("the past not forgotten where a text slides", "model.generate.continued", "cache._replace(length=0)",
        "cache._replace(length=len(unread[0]) - 2)", sliding),
    Bug("every row with the first row's adapter", "model.generate.generate_tokens", "config, its_adapter)",
        "config, by_adapter[0][1])", rows_apart),
    # GGUF's blocks
    Bug("zero at code 7", "compress.ggml.q4_0", "codes -= 8", "codes -= 7", in_blocks),
    Bug("no offset", "compress.ggml.expand", "out += offsets", "pass", in_blocks),
    Bug("the offset before the scale", "compress.ggml.expand", "out *= scales",
        "out += 0 if offsets is None else offsets\n        out *= scales", in_blocks),
    Bug("the scale of the first block", "compress.ggml.expand", "out *= scales", "out *= scales[0]", in_blocks),
    Bug("floor(size + 0.5)", "compress.ggml.quantise_q8_0", "whole + np.floor(2 * (size - whole))",
        "np.floor(size + np.float32(0.5))", test_compress.test_q8_0_rounds_halves_away_from_zero),
    Bug("the highest code wraps round", "compress.ggml.packed", "np.minimum(codes.astype(np.uint8), 15)",
        "codes.astype(np.uint8) & 15", in_blocks),
    # QA-LoRA, and its merge into Q4_1
    Bug("a sum, not a mean", "adapters.qalora.pool", ".mean(axis=-1)", ".sum(axis=-1)", pooled),
    Bug("every L-th input pooled", "adapters.qalora.pool", "x.shape[-1] // g, g).mean(axis=-1)",
        "g, x.shape[-1] // g).mean(axis=-2)", pooled),
    Bug("the paper's factor g", "adapters.qalora.forward", "scaling(config) * L", "scaling(config) * g", pooled),
    Bug("no dropout", "adapters.qalora.forward", "dropout_forward(x, mask)", "dropout_forward(x, None)", pooled),
    Bug("columns repeated as a whole", "adapters.qalora.delta", "np.repeat(", "(lambda M, g, axis: np.tile(M, g))(",
        pooled),
    Bug("ΔW without 1/g", "adapters.qalora.delta", "L / g", "L", pooled),
    Bug("subtracted", "compress.ggml.with_offsets_added", "+ change", "- change", added_offsets),
    Bug("written over the scales", "compress.ggml.with_offsets_added", "blocks[..., 2:4] = ", "blocks[..., :2] = ",
        added_offsets),
    Bug("rounded twice", "compress.ggml.with_offsets_added", "change.astype(np.float64)", "change.astype('<f2')",
        added_offsets),
    Bug("written into the base", "compress.ggml.with_offsets_added", "np.array(weight.blocks)", "weight.blocks",
        added_offsets),
    Bug("codes chosen anew", "adapters.merge.in_format", "base.format == 'q4_1'", "False", into_offsets),
    Bug("an update that varies in its blocks", "adapters.merge.in_format", "np.all(blocks == blocks[..., :1])", "True",
        quantised_again),
    Bug("a mask forgotten", "adapters.merge.in_format", "mask is None and base.format", "base.format",
        quantised_again),
    # names and rows of a Llama's files
    Bug("rows left as they are", "formats.names.gguf_rows", "return array[order]", "return array", from_gguf),
    Bug("rows of blocks left as they are", "formats.names.gguf_rows", "array.blocks[order]", "array.blocks",
        blocks_from_gguf),
    Bug("v put in order too", "formats.names.gguf_rows", "architecture(config).gguf_interleaved",
        "(*architecture(config).gguf_interleaved, 'v_proj')", from_gguf),
    Bug("k left as it is", "formats.names.gguf_rows", "architecture(config).gguf_interleaved", "('q_proj',)",
        from_gguf),
    Bug("k's biases left as they are", "formats.names.gguf_rows", "architecture(config).gguf_interleaved",
        "architecture(config).gguf_interleaved or ('k_proj' in layer and array.ndim == 1)", from_gguf),
    *(
        Bug(f"{a} and {b} exchanged", "formats.names.layer_names", ".file_names",
            f".file_names.replace('{a} ', '? ').replace('{b} ', '{a} ').replace('? ', '{b} ')", from_gguf)
        for a, b in [("ffn_gate", "ffn_up"), ("attn_norm", "ffn_norm"), ("attn_k", "attn_v")]
    ),
    Bug("the default θ", "formats.llama_fields.config_from_gguf", "fields.get(f'{name}.rope.freq_base', 10000.0)",
        "10000.0", from_gguf),
]
# fmt: on
