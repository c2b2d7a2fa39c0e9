"""The PyTorch backend: GPT-2's decoder as an nn.Module, eager or compiled, with PEFT's LoRA.

For a Llama or BERT, and for generation by GPT-2 with a key-value cache, the backend uses transformers' models.
"""

import tempfile

import numpy as np

from ..formats import save_hf
from ..formats.hugging_face import layout
from ..model import BertConfig, GPT2Config
from .case import LEARNING_RATE, WEIGHT_DECAY, Backend


def make_backend(case, threads, compiled=False):
    """Make the Backend for a case; it uses the given number of threads."""
    import torch

    torch.set_num_threads(threads)
    if case.n_new:
        return generation_backend(case)
    names, targets = {}, torch.tensor(case.batch.targets)
    if not isinstance(case.config, GPT2Config):
        layers = ((ours, theirs) for theirs, (ours,), *_ in layout(case.config))
        # lora_np's name for a layer -> the name in transformers
        names = {ours.rpartition(".")[0]: theirs.rpartition(".")[0] for ours, theirs in layers}
        model = from_transformers(case)
        inputs = {"input_ids": torch.tensor(padded(case.batch, model.config)), "return_dict": False}
        if isinstance(case.config, BertConfig):
            inputs["attention_mask"] = torch.tensor(np.arange(case.batch.ids.shape[1]) < case.batch.lengths[:, None])
        else:
            inputs["use_cache"] = False
    else:
        model = decoder(case.config)
        model.load_state_dict({name: torch.tensor(array) for name, array in case.params.items()})
        inputs = {"ids": torch.tensor(case.batch.ids), "last": torch.tensor(case.batch.lengths - 1)}
    if case.adapter is not None:
        model = adapted(model, case.adapter, names)

    def loss_and_logits():
        logits = model(**inputs)
        logits = logits[0] if isinstance(logits, tuple) else logits  # transformers' models return tuples
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten()), logits

    def loss_alone():  # lets the compiler discard the logits
        return loss_and_logits()[0]

    wanted = loss_alone if case.trained else loss_and_logits
    if compiled:
        wanted = torch.compile(wanted, fullgraph=True)  # raise an error instead of leaving parts uncompiled
    if case.trained:
        return training_backend(model, wanted, names)

    @torch.inference_mode()
    def check():
        loss, logits = wanted()
        return loss.item(), {"logits": logits.numpy()}

    return Backend(check, check)


def training_backend(model, loss_of, names):
    """Make the Backend for a training step; `names` maps lora_np's layer names to the model's where they differ."""
    import torch

    # PEFT's L.lora_A.default.weight is lora_np's L.lora_A.
    trained = {name.removesuffix(".default.weight"): p for name, p in model.named_parameters() if p.requires_grad}
    trained = renamed(trained, {theirs: ours for ours, theirs in names.items()})
    matrices = {"params": [p for p in trained.values() if p.ndim > 1], "weight_decay": WEIGHT_DECAY}
    vectors = {"params": [p for p in trained.values() if p.ndim == 1], "weight_decay": 0.0}  # empty with LoRA
    # On a CPU, `fused` is 3 to 5 times as fast as PyTorch's other two implementations of AdamW.
    optimiser = torch.optim.AdamW([matrices, vectors], lr=LEARNING_RATE, fused=True)

    def backward():
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        return loss.item()

    def check():
        return backward(), {name: p.grad.numpy() for name, p in trained.items()}

    def step():
        loss = backward()
        optimiser.step()
        return loss

    return Backend(check, step)


def generation_backend(case):
    """Make the Backend for greedy generation by transformers, with lora_np's weights and no end-of-text token."""
    import torch

    model, prompt = from_transformers(case), torch.tensor(case.batch.ids)
    length = {"min_new_tokens": case.n_new, "max_new_tokens": case.n_new, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(prompt)

    @torch.inference_mode()
    def check():
        tokens = model.generate(prompt, attention_mask=mask, do_sample=False, use_cache=True, **length)
        return 0.0, {"tokens": tokens.numpy()}

    return Backend(check, check)


def decoder(config):
    """Make the decoder as a module whose parameters have lora_np's names.

    q, k and v are separate layers, because PEFT requires this; one fused layer for q, k and v was not faster.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    C, H = config.d_model, config.n_heads

    def layer_norm():
        return nn.LayerNorm(C, eps=config.layer_norm_eps)

    def block():
        attn = {name: nn.Linear(C, C) for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
        mlp = {"up_proj": nn.Linear(C, config.d_ff), "down_proj": nn.Linear(config.d_ff, C)}
        modules = {"ln1": layer_norm(), "attn": nn.ModuleDict(attn), "ln2": layer_norm(), "mlp": nn.ModuleDict(mlp)}
        return nn.ModuleDict(modules)

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok_emb = nn.Embedding(config.vocab_size, C)
            self.pos_emb = nn.Embedding(config.n_positions, C)
            self.blocks = nn.ModuleList(block() for _ in range(config.n_layers))
            self.ln_f = layer_norm()
            self.head = nn.Linear(C, config.n_classes, bias=False) if config.n_classes else None

        def forward(self, ids, last):
            x = self.tok_emb(ids) + self.pos_emb.weight[: ids.shape[1]]  # (B, T, C)
            for block in self.blocks:
                attn, mlp = block["attn"], block["mlp"]
                h = block["ln1"](x)
                q, k, v = (attn[name](h).unflatten(-1, (H, C // H)) for name in ("q_proj", "k_proj", "v_proj"))
                q, k, v = (a.transpose(1, 2) for a in (q, k, v))  # (B, H, T, D)
                context = F.scaled_dot_product_attention(q, k, v, is_causal=True)
                x = x + attn["o_proj"](context.transpose(1, 2).flatten(2))
                x = x + mlp["down_proj"](F.gelu(mlp["up_proj"](block["ln2"](x)), approximate="tanh"))
            if self.head is None:
                return F.linear(self.ln_f(x), self.tok_emb.weight)
            return self.head(self.ln_f(x[torch.arange(len(ids)), last]))  # the last non-padding token of each row

    return Decoder()


def from_transformers(case):
    """Make the transformers model with the case's weights, as a language model or a classifier."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForSequenceClassification if case.config.n_classes else AutoModelForCausalLM
    with tempfile.TemporaryDirectory() as folder:
        save_hf(folder, case.dense().params, case.config)
        model = kind.from_pretrained(folder)
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()  # in memory instead of in a mapped file
    return model


def padded(batch, config):
    """Pad ids (B, T) with an id that no row ends with: transformers classifies each row at its last non-padding id."""
    ends = batch.ids[np.arange(len(batch.ids)), batch.lengths - 1]
    config.pad_token_id = min(set(range(len(ends) + 1)) - set(ends.tolist()))
    return np.where(np.arange(batch.ids.shape[1]) < batch.lengths[:, None], batch.ids, config.pad_token_id)


def renamed(arrays, names):
    """Rename layers in a dict whose keys have the form LAYER.PARAMETER; `names` maps old layer names to new ones."""
    parts = ((*name.rpartition("."), array) for name, array in arrays.items())
    return {f"{names.get(layer, layer)}.{leaf}": array for layer, _, leaf, array in parts}


def adapted(model, adapter, names):
    """Add lora_np's adapter to the model as PEFT's LoRA; only the adapter and its head, if any, are trained."""
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = adapter.config
    layers = {name.rpartition(".")[0] for name in adapter.weights if "lora_" in name}
    targets = sorted({names.get(layer, layer) for layer in layers})  # whole names, because some are parts of others
    lora = LoraConfig(r=config.r, lora_alpha=config.alpha, target_modules=targets, lora_dropout=0.0)
    wrapped = get_peft_model(model, lora)
    arrays = renamed({name: array for name, array in adapter.weights.items() if "lora_" in name}, names)
    set_peft_model_state_dict(wrapped, {f"base_model.model.{n}.weight": torch.tensor(a) for n, a in arrays.items()})
    model = wrapped.get_base_model()  # without the overhead of PEFT's outer module
    if "head.weight" in adapter.weights:  # the adapter's head has the same values as the base's
        model.get_submodule(names.get("head", "head")).requires_grad_(True)
    return model
