"""PyTorch's side: the same decoder as an nn.Module, eager or under torch.compile, with PEFT's LoRA. Generation is
transformers' GPT-2 with a key-value cache.
"""

import tempfile
from contextlib import contextmanager

from ..formats import save_gpt2
from .case import LEARNING_RATE, WEIGHT_DECAY, Side, generation_side


@contextmanager
def make_side(case, threads, compiled=False):
    """The case in PyTorch on so many threads."""
    import torch

    torch.set_num_threads(threads)
    if case.n_new:
        yield generation_side(generation(case))
        return
    if compiled:
        torch._dynamo.reset()  # another case's shapes would make this one's dynamic
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

    ready = torch.compile if compiled else lambda function: function
    yield training_side(model, ready(loss_alone)) if case.trained else forward_side(ready(loss_and_logits))


def training_side(model, loss_of):
    import torch

    trained = {our_name(name): p for name, p in model.named_parameters() if p.requires_grad}
    groups = [
        {"params": [p for p in trained.values() if (p.ndim > 1) is is_matrix], "weight_decay": decay}
        for is_matrix, decay in ((True, WEIGHT_DECAY), (False, 0.0))
    ]
    # `fused` is the fastest of PyTorch's three loops on a CPU, by a factor of 3 to 5.
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=LEARNING_RATE, fused=True)

    def backward():
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        return loss

    def check():
        return backward().item(), {name: p.grad.numpy() for name, p in trained.items()}

    def step():
        loss = backward()
        optimiser.step()
        return loss.item()

    return Side(check, step)


def forward_side(loss_and_logits):
    import torch

    def check():
        with torch.inference_mode():
            loss, logits = loss_and_logits()
        return loss.item(), {"logits": logits.numpy()}

    def step():
        with torch.inference_mode():
            return loss_and_logits()[0].item()

    return Side(check, step)


# ---------------------------------------------------------------- the model


def decoder(config):
    """The decoder as a module whose parameters have lora_np's names.

    q, k and v are layers of their own, as PEFT needs them. One layer for the three made no step faster.
    """
    import torch
    from torch import nn
    from torch.nn import functional as F

    C, H = config.d_model, config.n_heads

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(C, C) for _ in range(4))

        def forward(self, h):
            q, k, v = (
                proj(h).unflatten(-1, (H, C // H)).transpose(1, 2)  # (B, H, T, D)
                for proj in (self.q_proj, self.k_proj, self.v_proj)
            )
            context = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.o_proj(context.transpose(1, 2).flatten(2))

    class MLP(nn.Module):
        def __init__(self):
            super().__init__()
            self.up_proj, self.down_proj = nn.Linear(C, config.d_ff), nn.Linear(config.d_ff, C)

        def forward(self, h):
            return self.down_proj(F.gelu(self.up_proj(h), approximate="tanh"))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln1, self.ln2 = (nn.LayerNorm(C, eps=config.layer_norm_eps) for _ in "12")
            self.attn, self.mlp = Attention(), MLP()

        def forward(self, x):
            x = x + self.attn(self.ln1(x))
            return x + self.mlp(self.ln2(x))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.tok_emb = nn.Embedding(config.vocab_size, C)
            self.pos_emb = nn.Embedding(config.n_positions, C)
            self.blocks = nn.ModuleList(Block() for _ in range(config.n_layers))
            self.ln_f = nn.LayerNorm(C, eps=config.layer_norm_eps)
            self.head = nn.Linear(C, config.n_classes, bias=False) if config.n_classes else None

        def forward(self, ids, last):
            x = self.tok_emb(ids) + self.pos_emb.weight[: ids.shape[1]]
            for block in self.blocks:
                x = block(x)
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


def our_name(name):
    """PEFT's L.lora_A.default.weight -> L.lora_A; all other names are lora_np's."""
    return name.removesuffix(".default.weight") if ".lora_" in name else name


# ---------------------------------------------------------------- generation


def generation(case):
    """A function that generates the case's tokens greedily with transformers; no token ends a text."""
    import torch

    model, prompt = gpt2(case), torch.tensor(case.batch.ids)
    settings = {
        "attention_mask": torch.ones_like(prompt),
        "min_new_tokens": case.n_new,
        "max_new_tokens": case.n_new,
        "do_sample": False,
        "use_cache": True,
        "pad_token_id": 0,
        "eos_token_id": None,
    }

    def generate():
        with torch.inference_mode():
            return model.generate(prompt, **settings).numpy()

    return generate


def gpt2(case):
    """transformers' GPT-2 language model with lora_np's weights."""
    from transformers import GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        save_gpt2(folder, case.params, case.config)
        return GPT2LMHeadModel.from_pretrained(folder).eval()
