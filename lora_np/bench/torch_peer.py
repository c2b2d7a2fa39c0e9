"""PyTorch's side: the same decoder as an nn.Module, eager or under torch.compile, with PEFT's LoRA. Generation is
transformers' GPT-2 with a key-value cache.
"""

import tempfile

from ..formats import save_gpt2
from .case import LEARNING_RATE, WEIGHT_DECAY, Side


def make_side(case, threads, compiled=False):
    """The case in PyTorch on so many threads."""
    import torch

    torch.set_num_threads(threads)
    if case.n_new:
        return generation_side(case)
    model = decoder(case.config)
    model.load_state_dict({name: torch.tensor(array) for name, array in case.params.items()})
    if case.adapter is not None:
        model = adapted(model, case.adapter)
    ids, targets, last = (torch.tensor(array) for array in (case.batch.ids, case.batch.targets, case.batch.lengths - 1))

    def loss_and_logits():
        logits = model(ids, last)
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten()), logits

    def loss_alone():  # a compiler need not keep logits that nobody asks for
        return loss_and_logits()[0]

    wanted = loss_alone if case.trained else loss_and_logits
    if compiled:
        wanted = torch.compile(wanted)
    if case.trained:
        return training_side(model, wanted)

    @torch.inference_mode()
    def check():
        loss, logits = wanted()
        return loss.item(), {"logits": logits.numpy()}

    return Side(check, check)


def training_side(model, loss_of):
    import torch

    # PEFT's L.lora_A.default.weight is lora_np's L.lora_A. All other names are the same.
    trained = {name.removesuffix(".default.weight"): p for name, p in model.named_parameters() if p.requires_grad}
    matrices = {"params": [p for p in trained.values() if p.ndim > 1], "weight_decay": WEIGHT_DECAY}
    vectors = {"params": [p for p in trained.values() if p.ndim == 1], "weight_decay": 0.0}  # none with LoRA
    # `fused` is the fastest of PyTorch's three loops on a CPU, by a factor of 3 to 5.
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

    return Side(check, step)


def generation_side(case):
    """Greedy generation with transformers' GPT-2, which has lora_np's weights; no token ends a text."""
    import torch
    from transformers import GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(folder, case.params, case.config)
        model = GPT2LMHeadModel.from_pretrained(folder).eval()
    prompt = torch.tensor(case.batch.ids)
    length = {"min_new_tokens": case.n_new, "max_new_tokens": case.n_new, "pad_token_id": 0, "eos_token_id": None}
    mask = torch.ones_like(prompt)

    @torch.inference_mode()
    def check():
        tokens = model.generate(prompt, attention_mask=mask, do_sample=False, use_cache=True, **length)
        return 0.0, {"tokens": tokens.numpy()}

    return Side(check, check)


def decoder(config):
    """The decoder as a module whose parameters have lora_np's names.

    q, k and v are layers of their own, as PEFT needs them. One layer for the three made no step faster.
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
            return self.head(self.ln_f(x[torch.arange(len(ids)), last]))  # the last real token of each row

    return Decoder()


def adapted(model, adapter):
    """The model with PEFT's LoRA on it, holding lora_np's adapter; only the adapter is trained."""
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    config = adapter.config
    targets = sorted({name.split(".")[-2] for name in adapter.weights if "lora_" in name})  # such as q_proj
    lora = LoraConfig(r=config.r, lora_alpha=config.alpha, target_modules=targets, lora_dropout=0.0)
    wrapped = get_peft_model(model, lora)
    state = {f"base_model.model.{name}.weight": torch.tensor(array) for name, array in adapter.weights.items()}
    set_peft_model_state_dict(wrapped, state)
    return wrapped.get_base_model()  # spares each call PEFT's outer module
