"""FLOPs of one step by term, from shapes: where LoRA's saving comes from, in numbers.

Counted are the products of two matrices, (n, k) by (k, m) as 2 n k m: one multiplication and one addition for
each of n k m. Elementwise work (softmax, GELU, layer norm, biases, dropout, sums over rows, look-ups) and the
optimiser count nothing.

**Why LoRA costs two thirds.** Take one square layer, N × N, and one row of x; count multiply-adds.
Full fine-tuning needs three products of N² each:

    y = x Wᵀ        dx = dy W        dW = dyᵀ x                                         3 N²

LoRA at rank R needs no dW. Its own six products cost N R each, since u = x Aᵀ has R numbers:

    y = x Wᵀ + s u Bᵀ,  u = x Aᵀ                                                   N² + 2 N R
    dx = dy W + du A,   du = s dy B                                                N² + 2 N R
    dA = duᵀ x,         dB = s dyᵀ u                                                    2 N R
                                                                            in all 2 N² + 6 N R

so that LoRA / full = 2/3 + 2 R/N, two thirds where R is far below N (Schulman and Thinking Machines Lab 2025,
"LoRA Without Regret"). A whole model differs from that in both directions: attention's products between q,
k and v have no weights and cost both nearly the same; a layer that is not adapted costs 2 N² and no more; and below
the lowest trained layer there is no dx either, which in a model of few layers can be worth more than R costs.
"""

from ..adapters import KINDS, LINEAR_LAYERS, module_config
from ..adapters.counting import linear_flops
from ..model.config import positions_read
from .step_plan import plan_step


def step_flops(config, B, T, adapter_config=None, wanted=None):
    """FLOPs of one forward and backward pass, a term for each matrix product that is carried out.

    A term is named after what it belongs to and what it computes:

        blocks.0.attn.q_proj.forward, .dx, .dweight    a linear layer: y, and the gradients of x and W
        blocks.0.attn.q_proj.lora_A.forward, …         the same three of u = x Aᵀ: .dweight is dA
        blocks.0.attn.q_proj.lora_B.forward, …         and of s u Bᵀ: .dx is du, .dweight is dB
        blocks.0.attn.scores.forward, .dq, .dk         S = q kᵀ / √D
        blocks.0.attn.context.forward, .dprobs, .dv    O = P v
        head.forward, .dx, .dweight                    a language model's is tied: .dweight is the token
                                                       embedding's

    A product that no wanted gradient needs is not carried out, and has no term.

    Parameters
    ----------
    config, B, T, adapter_config, wanted : see `plan_step`; B rows of T positions, padding included

    Returns
    -------
    dict, name -> int, in the forward pass's order

    Examples
    --------
    >>> full = step_flops(config, 32, 64)
    >>> lora = step_flops(config, 32, 64, AdapterConfig(r=8))
    >>> sum(lora.values()) / sum(full.values()), flops_by_phase(lora), flops_by_kind(lora)
    """
    plan = plan_step(config, B, T, adapter_config, wanted)
    call, C = plan.call, config.d_model
    terms = {}
    for i in range(config.n_layers):
        attn, mlp = f"blocks.{i}.attn", f"blocks.{i}.mlp"
        for name in ("q_proj", "k_proj", "v_proj"):
            terms |= layer_flops(f"{attn}.{name}", plan)
        asked = [name for name in "qkv" if call.operands_wanted(f"{attn}.{name}_proj")]
        terms |= attention_flops(attn, B, positions_read(config, f"{attn}.q_proj", T), T, C, asked)
        terms |= layer_flops(f"{attn}.o_proj", plan)
        terms |= layer_flops(f"{mlp}.up_proj", plan)
        terms |= layer_flops(f"{mlp}.down_proj", plan)
    if config.n_classes:  # reads one position a row
        return terms | linear_flops("head", B, (config.n_classes, C), call.operands_wanted("head"))
    asked = call.operands_wanted("tok_emb", place="head")
    return terms | linear_flops("head", B * T, (config.vocab_size, C), asked)


def layer_flops(module, plan):
    """One of the blocks' linear layers, adapted or not."""
    rows = plan.B * positions_read(plan.config, module, plan.T)
    shape = plan.shapes[f"{module}.weight"]
    wanted = plan.call.operands_wanted(module)
    if module not in plan.call.adapter_parts:
        return linear_flops(module, rows, shape, wanted)
    adapter_config = module_config(plan.call.adapter_config, module)
    masked = bool(plan.trained) and adapter_config.dropout > 0
    return KINDS[adapter_config.kind].flops(module, rows, shape, adapter_config, wanted, masked)


def attention_flops(name, B, Tq, Tk, C, wanted):
    """All heads' q kᵀ and P v, and the two gradients of each, are Tq · Tk · C multiply-adds a row.

    The masked half is counted, because it is computed. A frozen q and k need no gradient of the scores,
    and then none of the weights.
    """
    flops = 2 * B * Tq * Tk * C
    scores_wanted = "q" in wanted or "k" in wanted
    needed = {
        "scores.forward": True,
        "scores.dq": "q" in wanted,
        "scores.dk": "k" in wanted,
        "context.forward": True,
        "context.dprobs": scores_wanted,
        "context.dv": "v" in wanted,
    }
    return {f"{name}.{term}": flops for term, is_needed in needed.items() if is_needed}


def flops_by_phase(terms):
    """Totals of "forward", "dx" (gradients handed on to what lies below) and "dweight".

    The last two are the backward pass.
    """
    totals = {"forward": 0, "dx": 0, "dweight": 0}
    for name, flops in terms.items():
        leaf = name.rpartition(".")[2]
        totals[leaf if leaf in totals else "dx"] += flops  # dq, dk, dv and dprobs are handed on
    return totals


KIND_OF = {
    **dict.fromkeys(LINEAR_LAYERS, "projections"),
    "scores": "attention",
    "context": "attention",
    "head": "head",
}


def flops_by_kind(terms):
    """Totals of "projections", "attention", "head" and "adapter"."""
    totals = {"projections": 0, "attention": 0, "head": 0, "adapter": 0}
    for name, flops in terms.items():
        totals[KIND_OF.get(name.split(".")[-2], "adapter")] += flops
    return totals


def predicted_ratio(config, B, T, adapter_config=None, wanted=None):
    """FLOPs of a step over those of a full fine-tuning step of the same batch.

    Parameters
    ----------
    config, B, T, adapter_config, wanted : see `plan_step`
    """
    part, full = step_flops(config, B, T, adapter_config, wanted), step_flops(config, B, T)
    return sum(part.values()) / sum(full.values())
