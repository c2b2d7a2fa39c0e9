"""PyTorch's side: the same decoder as an nn.Module, eager or under torch.compile, with PEFT's LoRA."""

from contextlib import contextmanager

from .case import LEARNING_RATE, WEIGHT_DECAY, Side


@contextmanager
def make_side(case, threads, compiled=False):
    """The case in PyTorch on so many threads."""
    import torch

    torch.set_num_threads(threads)
    if compiled:
        torch._dynamo.reset()  # nothing of another case, whose shapes would make this one's dynamic
    yield build_side(case, compiled)


def build_side(case, compiled):
    import torch

    model = decoder(case.config)
    model.load_state_dict({name: torch.tensor(array) for name, array in case.params.items()})
    if case.adapter is not None:
        model = adapted(model, case.adapter)
    ids, targets, last = (torch.tensor(array) for array in (case.batch.ids, case.batch.targets, case.batch.lengths - 1))

    def loss_and_logits():
        logits = model(ids, last)
        return torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten()), logits

    def loss_alone():  # a compiler may keep no logits where nobody asks for them
        return loss_and_logits()[0]

    ready = torch.compile if compiled else lambda function: function
    return training_side(model, ready(loss_alone)) if case.trained else forward_side(ready(loss_and_logits))


def training_side(model, loss_of):
    import torch

    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    matrices = [parameter for parameter in trained.values() if parameter.ndim > 1]
    vectors = [parameter for parameter in trained.values() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    # `fused` is the fastest of PyTorch's three loops on a CPU, by a factor of 3 to 5.
    optimiser = torch.optim.AdamW([group for group in groups if group["params"]], lr=LEARNING_RATE, fused=True)

    def check():
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
        return loss.item(), {our_name(name): p.grad.numpy() for name, p in trained.items()}

    def step():
        optimiser.zero_grad(set_to_none=True)
        loss = loss_of()
        loss.backward()
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
    lora = LoraConfig(r=config.r, lora_alpha=config.alpha, target_modules=list(config.targets), lora_dropout=0.0)
    wrapped = get_peft_model(model, lora)
    state = {f"base_model.model.{name}.weight": torch.tensor(array) for name, array in adapter.weights.items()}
    set_peft_model_state_dict(wrapped, state)
    return wrapped.get_base_model()  # spares each call PEFT's outer module


# ---------------------------------------------------------------- names


def our_name(name):
    """PEFT's L.lora_A.default.weight -> L.lora_A; other names are lora_np's already."""
    return name.removesuffix(".default.weight") if ".lora_" in name else name
