"""The reference vectors against PyTorch in float64, with its own operations, autograd, optimiser and SVD.

Only the inputs come from the vectors' files. What PyTorch computes from them has to be within the float64 tolerances
that apply to ports. Cases of files and blocks are not among them: test_formats_hf.py compares lora_np's files with
transformers and PEFT, and test_gguf.py and test_llama_files_hf.py compare them with `gguf`. Nor is the encoder, which
test_bert.py compares with transformers.
"""

import math
from types import SimpleNamespace

import pytest

from lora_np.compress.code_points import CODE_POINTS
from lora_np.compress.ggml import BLOCK
from lora_np.reference import load_case, load_manifest
from lora_np.reference.cases.model import config_of
from lora_np.reference.tolerances import allowed, shares

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from .test_training_torch import torch_adamw, torch_clip, torch_schedule  # noqa: E402
from .torch_model import Mask, TorchModel, loss_of, record_activations, rotated  # noqa: E402
from .torch_model import attention as torch_attention  # noqa: E402

pytestmark = pytest.mark.oracle

ENTRIES, FOLDER = load_manifest()


# ---------------------------------------------------------------- tier 1: forward; autograd does the rest


def linear(s, t):
    return {"y": F.linear(t["x"], t["weight"], t.get("bias"))}


def layer_norm(s, t):
    x = t["x"]
    inv_std = (x.var(dim=-1, unbiased=False) + s["eps"]).rsqrt()
    x_hat = F.layer_norm(x, x.shape[-1:], eps=s["eps"])
    return {"inv_std": inv_std, "x_hat": x_hat, "y": F.layer_norm(x, x.shape[-1:], t["weight"], t["bias"], s["eps"])}


def gelu(s, t):
    y = F.gelu(t["x"], approximate="tanh")
    return {"y": y, "slope": torch.autograd.grad(y.sum(), t["x"], retain_graph=True)[0]}


def softmax(s, t):
    return {"probs": F.softmax(t["x"], dim=-1)}


def attention(s, t):
    scores, context = torch_attention(t["q"], t["k"], t["v"], t["q"].shape[-1] // s["n_heads"], t.get("positions"))
    probs = F.softmax(scores, dim=-1)
    return {"scores": scores, "probs": probs, "context": context(probs)}


def gelu_erf(s, t):
    y = F.gelu(t["x"])
    return {"y": y, "slope": torch.autograd.grad(y.sum(), t["x"], retain_graph=True)[0]}


def mean_pool(s, t):
    return {"y": torch.stack([row[:length].mean(dim=0) for row, length in zip(t["x"], t["lengths"])])}


def encoder_attention(s, t):
    return attention(s, t | {"positions": t["lengths"][:, None] - 1})


def embedding(s, t):
    return {"y": F.embedding(t["ids"], t["weight"])}


def cross_entropy(s, t):
    logits, targets = t["logits"].flatten(0, -2), t["targets"].flatten()
    total = F.cross_entropy(logits, targets, ignore_index=s["ignore_index"], reduction="sum")
    return {"loss": total / max(1, int((targets != s["ignore_index"]).sum()))}


def dropout(s, t):
    return {"y": t["x"] * t["mask"]}


def rms_norm(s, t):
    inv_rms = (t["x"].square().mean(dim=-1) + s["eps"]).rsqrt()
    C = t["x"].shape[-1:]
    x_hat, y = F.rms_norm(t["x"], C, eps=s["eps"]), F.rms_norm(t["x"], C, t["weight"], s["eps"])
    return {"inv_rms": inv_rms, "x_hat": x_hat, "y": y}


def rope(s, t):
    y, unit = rotated(t["x"], t["positions"], s["head_size"], t["theta"].detach())
    return {"cos": unit.real, "sin": unit.imag, "y": y}


def swiglu(s, t):
    return {"y": F.silu(t["gate"]) * t["up"]}


def linear_cross_entropy(s, t):
    return cross_entropy(s, {**t, "logits": F.linear(t["x"], t["weight"])})


def token_log_probs(s, t):
    logits, targets = F.linear(t["x"], t["weight"]).flatten(0, -2), t["targets"].flatten()
    losses = F.cross_entropy(logits, targets, ignore_index=s["ignore_index"], reduction="none")
    return {"log_probs": -losses.reshape(t["targets"].shape)}


def grpo(s, t):
    real = torch.arange(t["log_probs"].shape[1]) < t["lengths"][:, None]
    mean, deviation = t["rewards"].mean(dim=1, keepdim=True), t["rewards"].std(dim=1, keepdim=True)
    advantages = (t["rewards"] - mean) / (deviation + 1e-4)
    ratio, A = (t["log_probs"] - t["old"]).exp(), advantages.reshape(-1, 1)
    gain = torch.minimum(ratio * A, ratio.clamp(1 - s["clip"], 1 + s["clip"]) * A)
    d = t["reference"] - t["log_probs"]
    of_tokens = gain - s["beta"] * (d.exp() - d - 1)
    return {"advantages": advantages, "loss": -((of_tokens * real).sum(dim=1) / t["lengths"]).mean()}


def dpo(s, t):
    change = t["log_probs"] - t["reference"]
    return {"loss": -F.logsigmoid(s["beta"] * (change[:, 0] - change[:, 1])).mean()}


def scale_of(s):
    return s["alpha"] / (math.sqrt(s["r"]) if s["rslora"] else s["r"])


def lora(s, t):
    scale = scale_of(s)
    su = scale * F.linear(t["x"] * t.get("mask", 1.0), t["lora_A"])
    y = F.linear(t["x"], t["weight"], t.get("bias")) + F.linear(su, t["lora_B"])
    delta = scale * t["lora_B"] @ t["lora_A"]
    return {"su": su, "y": y, "delta": delta, "merged": t["weight"] + delta}


def dora(s, t):
    scale, m, dropped = scale_of(s), t["lora_magnitude_vector"], t["x"] * t.get("mask", 1.0)
    V = t["weight"] + scale * t["lora_B"] @ t["lora_A"]
    norm = torch.linalg.vector_norm(V, dim=1)
    held = norm if s["norm_gradient"] else norm.detach()
    h = F.linear(dropped, V)
    y = (m / held) * h + t.get("bias", 0.0) + F.linear(t["x"] - dropped, t["weight"])
    delta = (m / norm)[:, None] * V - t["weight"]
    su = scale * F.linear(dropped, t["lora_A"])
    return {"norm": norm, "h": h, "su": su, "y": y, "delta": delta, "merged": t["weight"] + delta}


def expanded(blocks, form):
    """U8 blocks as the matrix that they are, in float64."""
    gguf = pytest.importorskip("gguf")
    return torch.tensor(gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType[form.upper()])).double()


def qalora(s, t):
    weight, L = expanded(t["blocks"], "q4_1"), t["lora_A"].shape[1]
    pooled = F.avg_pool1d(t["x"] * t["mask"], BLOCK)
    factor = scale_of(s) * L
    y = F.linear(t["x"], weight, t["bias"]) + factor * F.linear(F.linear(pooled, t["lora_A"]), t["lora_B"])
    delta = (factor / BLOCK * t["lora_B"] @ t["lora_A"]).repeat_interleave(BLOCK, dim=1)
    merged = t["blocks"].clone().view(len(weight), L, 20)
    offsets = merged[..., 2:4].clone().view(torch.float16)[..., 0].double() + delta.detach()[:, ::BLOCK]
    merged[..., 2:4] = offsets.half()[..., None].view(torch.uint8)
    return {"weight": weight, "pooled": pooled, "y": y, "delta": delta, "merged": merged.flatten(1)}


def gradients(s, t, outputs, names):
    """{"grad.x": …} of inputs and of steps between, from that of the operation's output, which is an input."""
    upstream = {name.removeprefix("grad."): array for name, array in t.items() if name.startswith("grad.")}
    ((output, above),) = upstream.items() or [("loss", torch.tensor(s["grad_loss"], dtype=torch.float64))]
    arrays = [{**t, **outputs}[name.removeprefix("grad.")] for name in names]
    return dict(zip(names, torch.autograd.grad(outputs[output], arrays, above)))


# ---------------------------------------------------------------- tier 2


class Adapted(nn.Module):
    """A linear layer with an adapter, as one module, so that a hook sees its output."""

    def __init__(self, linear, compute, settings, arrays):
        super().__init__()
        self.weight, self.bias, self.mask = linear.weight, linear.bias, None
        self.compute, self.settings = compute, settings
        for leaf, array in arrays.items():
            setattr(self, leaf, nn.Parameter(array.detach().clone()))

    def forward(self, x, output="y"):
        mask = {} if self.mask is None else {"mask": self.mask}
        return self.compute(self.settings, {"x": x, **dict(self.named_parameters()), **mask})[output]

    def delta(self):
        return self.forward(torch.zeros_like(self.weight[:1]), "delta")  # past the hook


def build(s, t):
    """A TorchModel with a case's weights and adapter, and the parameters that are trained, by name."""
    config = config_of(s["model"])
    model = TorchModel(config).double()
    model.load_state_dict({name: t[name].detach() for name in model.state_dict()})
    adapter = s["adapter"] or {"layers": {}}
    for layer, of in adapter["layers"].items():
        arrays = {name.removeprefix(f"{layer}."): t[name] for name in t if name.startswith(f"{layer}.lora_")}
        settings = {**of, "rslora": adapter["rslora"], "norm_gradient": False}
        parent, _, leaf = layer.rpartition(".")
        adapted = Adapted(model.get_submodule(layer), COMPUTED[adapter["kind"]], settings, arrays)
        setattr(model.get_submodule(parent), leaf, adapted)
    trained = dict(model.named_parameters())
    if s["adapter"]:
        trained = {name: p for name, p in trained.items() if ".lora_" in name or name == "head.weight"}
    return model, trained


def put_masks(model, t):
    """A classifier's masks of one position serve all positions here: what is made at the others is not read."""
    for name, array in t.items():
        if name.startswith("mask."):
            place = name.removeprefix("mask.").removesuffix(".adapter")
            module = model.get_submodule(place)
            holder = module if isinstance(module, (Adapted, Mask)) else module.dropout
            holder.mask = array


def at_read(tensor, lengths):
    """The positions that a classifier reads: one of T along the last axis but one."""
    return torch.stack([row[..., length - 1, :].unsqueeze(-2) for row, length in zip(tensor, lengths)])


def model(s, t):
    net, trained = build(s, t)
    put_masks(net, t)
    seen = record_activations(net)
    logits = net(t["ids"], t["lengths"])
    loss = loss_of(logits, t["targets"])
    loss.backward()
    found = {**seen, "loss": loss, **{f"grad.{name}": a.grad for name, a in seen.items()}}
    found |= {f"grad.{name}": parameter.grad for name, parameter in trained.items()}
    with torch.no_grad():
        weights = dict(net.named_parameters())
        for layer in (s["adapter"] or {"layers": {}})["layers"]:
            delta = net.get_submodule(layer).delta()
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"] + delta
            found |= {f"delta.{layer}.weight": delta, f"merged.{layer}.weight": weights[f"{layer}.weight"]}
        bare, _ = build({**s, "adapter": None}, {**t, **weights})
        found["merged.logits"] = bare(t["ids"], t["lengths"])
    return found


def generate(s, t):
    """Without a cache: the whole text at each step."""
    net, _ = build(s, t)
    seen, ids, found = record_activations(net), t["ids"], {}
    for step in range(s["n_new"]):
        logits = net(ids, None)[:, -1]
        top = logits.topk(2).values
        found |= {f"step.{step}.logits": logits, f"step.{step}.margin": top[:, 0] - top[:, 1]}
        ids = torch.cat([ids, logits.argmax(dim=-1, keepdim=True)], dim=1)
    layers = range(s["model"]["n_layers"])
    steps = [[f"blocks.{i}.attn.k_{step}" for step in ("rotated", "norm", "proj")] for i in layers]
    cached = {"keys": [seen[next(name for name in names if name in seen)] for names in steps]}
    cached["values"] = [seen[f"blocks.{i}.attn.v_proj"] for i in layers]
    return {**found, "tokens": ids, **{name: torch.stack(arrays) for name, arrays in cached.items()}}


def sample(s, t):
    """With the formulas of transformers' logits processors."""
    seen = torch.gather(t["logits"], 1, t["ids"])
    seen = torch.where(seen > 0, seen / s["repetition_penalty"], seen * s["repetition_penalty"])
    logits = t["logits"].scatter(1, t["ids"], seen) / s["temperature"]
    if s["top_k"]:
        logits = logits.masked_fill(logits < logits.topk(s["top_k"]).values[:, -1:], -torch.inf)
    if s["top_p"]:
        ordered, order = logits.sort()
        leaves = F.softmax(ordered, dim=-1).cumsum(-1) <= 1 - s["top_p"]
        logits = logits.masked_fill(leaves.scatter(1, order, leaves), -torch.inf)
    probs = F.softmax(logits, dim=-1)
    return {"probs": probs, "tokens": torch.searchsorted(probs.cumsum(-1), t["uniform"][:, None], right=True)[:, 0]}


# ---------------------------------------------------------------- tier 3


def clip(s, t):
    parameters = {name.removeprefix("grad."): nn.Parameter(torch.zeros_like(a)) for name, a in t.items()}
    for name, parameter in parameters.items():
        parameter.grad = t[f"grad.{name}"].detach().clone()
    norm = torch.tensor(torch_clip(list(parameters.values()), s["max_norm"]), dtype=torch.float64)
    return {"norm": norm, **{f"clipped.{name}": parameter.grad for name, parameter in parameters.items()}}


def schedule(s, t):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], s["peak"])
    scheduler, rates = torch_schedule(optimiser, SimpleNamespace(**s, learning_rate=s["peak"])), []
    for _ in range(s["steps"]):
        rates += scheduler.get_last_lr()
        optimiser.step()
        scheduler.step()
    return {"learning_rate": torch.tensor(rates, dtype=torch.float64)}


def adamw(s, t):
    """An optimiser for each array, because each has its own rate."""
    settings, outputs = SimpleNamespace(optimiser=SimpleNamespace(**s["optimiser"]), learning_rate=1.0), {}
    for name in [name.removeprefix("start.") for name in t if name.startswith("start.")]:
        parameter = nn.Parameter(t[f"start.{name}"].detach().clone())
        optimiser = torch_adamw([parameter], settings)
        for step, (rate, gradient) in enumerate(zip(s["learning_rate"], t[f"grad.{name}"], strict=True), 1):
            for group in optimiser.param_groups:
                group["lr"] = rate * s["optimiser"]["rate_factors"].get(name.rpartition(".")[2], 1.0)
            parameter.grad = gradient.detach().clone()
            optimiser.step()
            state = optimiser.state[parameter]
            for kind, array in (("m", state["exp_avg"]), ("v", state["exp_avg_sq"]), ("after", parameter)):
                outputs[f"step.{step}.{kind}.{name}"] = array.detach().clone()
    return outputs


def accumulate(s, t):
    share = t["n_targets"].double() / t["n_targets"].sum()
    return {f"mean.{name}": torch.tensordot(share, a, 1) for name, a in t.items() if name != "n_targets"}


def train(s, t):
    (net, trained), outputs = build(s, t), {}
    about = SimpleNamespace(**{**s["train"], "optimiser": SimpleNamespace(**s["train"]["optimiser"])})
    by_factor, pairs, since = {}, [], []
    for name, parameter in trained.items():
        by_factor.setdefault(about.optimiser.rate_factors.get(name.rpartition(".")[2], 1.0), []).append(parameter)
    for factor, parameters in by_factor.items():
        scaled = SimpleNamespace(**{**vars(about), "learning_rate": factor * about.learning_rate})
        optimiser = torch_adamw(parameters, scaled)
        pairs.append((factor, optimiser, torch_schedule(optimiser, scaled)))
    for step in range(about.steps):
        ids, targets, lengths = (t[f"batches.{name}"][t["order"][step]] for name in ("ids", "targets", "lengths"))
        stays = {name.removeprefix("kept."): a[step].double() for name, a in t.items() if name.startswith("kept.")}
        put_masks(net, {f"mask.{place}": mask / (1.0 - about.dropout) for place, mask in stays.items()})
        net.zero_grad()
        loss = loss_of(net(ids, lengths), targets)
        loss.backward()
        if step == 0:
            outputs |= {f"step.1.grad.{name}": parameter.grad.clone() for name, parameter in trained.items()}
        norm = torch_clip(list(trained.values()), about.clip_norm)
        since.append((loss.item(), norm, pairs[0][2].get_last_lr()[0] / pairs[0][0]))
        for _, optimiser, scheduler in pairs:
            optimiser.step()
            scheduler.step()
        if step + 1 in (1, 10, 50):
            measured = zip(("loss", "grad_norm", "learning_rate"), torch.tensor(since, dtype=torch.float64).T)
            outputs |= {f"step.{step + 1}.{name}": values for name, values in measured}
            outputs |= {f"step.{step + 1}.after.{name}": a.detach().clone() for name, a in trained.items()}
            since = []
    return outputs


def spectrum(s, t):
    update = t["after"] - t["before"]
    u, sigma, vt = torch.linalg.svd(update, full_matrices=False)
    outputs = {"update": update, "singular_values": sigma, "energy": torch.cumsum(sigma**2, 0) / (sigma**2).sum()}
    for k in s["k"]:
        outputs |= {f"left.{k}": u[:, :k] @ u[:, :k].T, f"right.{k}": vt[:k].T @ vt[:k]}
    return outputs


def nf4(s, t):
    """test_compress.py compares the code points with the paper's table."""
    points, blocks = torch.tensor(CODE_POINTS), t["weight"].reshape(-1, s["block_size"])
    absmax = blocks.abs().amax(dim=1)
    middles = (points[1:] + points[:-1]) / 2
    codes = torch.bucketize(blocks / absmax.where(absmax > 0, torch.ones_like(absmax))[:, None], middles)
    first, second = codes.reshape(-1, 2).T
    outputs, scales = {"absmax": absmax, "codes": codes.flatten(), "packed": first * 16 + second}, absmax
    if s["double"]:
        absmax = absmax.float()
        mean = absmax.double().mean().float()
        steps = torch.stack([group.abs().max() for group in (absmax - mean).split(256)]) / torch.tensor(127.0)
        step = steps.repeat_interleave(256)[: len(absmax)]
        divisor = step.where(step > 0, torch.ones_like(step))
        scale_codes = torch.round((absmax - mean) / divisor).clamp(-127, 127)
        scales = (mean + step * scale_codes).clamp(min=0.0).double()
        outputs |= {"mean": mean, "steps": steps, "scale_codes": scale_codes}
    return {**outputs, "scales": scales, "dequantised": (points[codes] * scales[:, None]).reshape(t["weight"].shape)}


COMPUTED = {f.__name__: f for f in (
    linear, layer_norm, gelu, softmax, attention, embedding, cross_entropy, dropout, lora, dora, model, generate,
    sample, clip, schedule, adamw, accumulate, train, spectrum, nf4, rms_norm, rope, swiglu, linear_cross_entropy,
    qalora, gelu_erf, mean_pool, encoder_attention, token_log_probs, grpo, dpo,
)}  # fmt: skip
COMPUTED |= {"llama": model, "llama_generate": generate, "llama_train": train, "grouped_attention": attention}
ELSEWHERE = {"gpt2_read", "gpt2_write", "peft_read", "peft_write", "blocks", "gguf_read", "gguf_adapter", "bert"}


def as_tensor(array):
    tensor = torch.tensor(array)
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


@pytest.mark.parametrize("id", [id for id, entry in ENTRIES.items() if entry["kind"] not in ELSEWHERE])
def test_case(id):
    entry = ENTRIES[id]
    reference = load_case(entry, "float64", FOLDER)
    inputs = {r["name"]: as_tensor(reference[r["name"]]) for r in entry["tensors"] if r["stage"] == "input"}
    if "blocks" in entry["settings"]:
        form = entry["settings"]["blocks"]
        inputs = {n: expanded(a, form) if a.dtype == torch.uint8 else a for n, a in inputs.items()}
    outputs = COMPUTED[entry["kind"]](entry["settings"], inputs)
    records = [record for record in entry["tensors"] if record["stage"] != "input"]
    assert records
    if "model" not in entry["settings"] and entry["tier"] in (1, 4, 5, 6):
        back = [record["name"] for record in records if record["stage"] == "backward"]
        outputs |= gradients(entry["settings"], inputs, outputs, back)
    for record in records:
        name, expected = record["name"], reference[record["name"]]
        got = outputs[name].detach()
        if got.shape != expected.shape:  # the reference has one position of the last block
            got = at_read(got, inputs["lengths"])
        got = got.numpy().astype(expected.dtype)
        assert got.shape == expected.shape, name
        assert (shares(got, expected, *allowed(record, "float64")) <= 1).all(), name
