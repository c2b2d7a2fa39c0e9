"""The benchmark's peers compute what lora_np computes, at every kind of work, and a wrong one is told from it.

The bench itself checks this before it times anything, on the sizes that it times. Here the sizes are tiny.
"""

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lora_np.bench import llama_cpp, llama_cpp_peer, torch_peer
from lora_np.bench.agreement import Outcome, compare
from lora_np.bench.backends import BACKENDS, PEERS, missing_packages
from lora_np.bench.case import Rung, make_case
from lora_np.bench.worker import Worker

from .llama_cpp import need_llama_cpp

torch = pytest.importorskip("torch")
pytest.importorskip("peft")
pytest.importorskip("transformers")

pytestmark = pytest.mark.oracle

TINY = Rung(24, 2, 3, 12, 5, 37)
LLAMA = Rung(96, 3, 6, 12, 5, 37, 2, 64)
RUNGS = {"gpt2": TINY, "llama": LLAMA}
PEERS_OF = {
    "gpt2": ("torch", "jax", "recompute"),
    "llama": ("torch", "llama.cpp", "blocks", "recompute", "blocks-recompute"),
}
COMPARED = [(kind, peer, work) for kind, peers in PEERS_OF.items() for peer in peers for work in PEERS[peer].works]
# A compiler takes 10 s for each.
COMPARED += [pytest.param(kind, "compile", "lora_all", marks=pytest.mark.slow) for kind in RUNGS]


def need(peer):
    """Skip the test without the peer's packages."""
    if missing_packages(PEERS[peer]):
        pytest.skip(f"{peer} is not installed")
    if peer == "llama.cpp":
        need_llama_cpp()


def what(name, case, steps=3):
    """The outcome of a backend's check and first steps."""
    backend = BACKENDS[name](case, 1)
    with backend.process or nullcontext():
        loss, arrays = backend.check()
        arrays = {key: np.array(array) for key, array in arrays.items()}
        return Outcome(loss, arrays, [backend.step() for _ in range(steps if case.trained else 0)])


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind, peer, work", COMPARED)
def test_a_peer_agrees(kind, peer, work):
    need(peer)
    case = make_case(RUNGS[kind], work)
    ours, theirs = what("lora_np", case), what(peer, case)
    if case.trained:
        assert set(ours.arrays) == set(case.trained)
        assert ours.losses[2] < ours.losses[0]
    assert compare(theirs, ours).problem == ""


def test_the_versions_name_llama_cpp():
    need("llama.cpp")
    worker = Worker("llama.cpp", 1)
    worker.make(LLAMA, "generate_1", 0)
    with worker.backend.process:
        versions = worker.versions()["versions"]
    wanted = json.loads(Path(llama_cpp.HERE, "package.json").read_text())["dependencies"]
    assert versions["node-llama-cpp"] == wanted["node-llama-cpp"]
    assert versions["llama.cpp"] and versions["node"] and versions["numpy"] == np.__version__


# ------------------------------------------------------------------ planted differences


def other_eps(model):
    model.ln_f.eps = 1e-3


def frozen_bias(model):
    model.blocks[1]["attn"]["o_proj"].bias.requires_grad_(False)


def with_change(change):
    """torch_peer's decoder with something else in it."""
    right = torch_peer.decoder

    def decoder(config):
        model = right(config)
        change(model)
        return model

    return decoder


def other_scale(model, adapter, names, right=torch_peer.adapted):
    return right(model, adapter._replace(config=replace(adapter.config, alpha=15.0)), names)


def other_gelu(x, approximate, right=torch.nn.functional.gelu):
    return right(x)


def other_theta(case, right=torch_peer.from_transformers):
    model = right(case)
    model.model.rotary_emb.inv_freq *= 1.01
    return model


def padding_read(batch, config):
    config.pad_token_id = -1
    return batch.ids


def other_file(path, params, config, fields, right=llama_cpp_peer.save_gguf):
    right(path, params, replace(config, rope_theta=10.0), fields)


WRONG = {  # rung, work, what is replaced in a peer's backend and by what, and what the report says
    "epsilon": (TINY, "full", torch_peer, "decoder", with_change(other_eps), ""),
    "gelu": (TINY, "full", torch.nn.functional, "gelu", other_gelu, ""),
    "a frozen bias": (TINY, "full", torch_peer, "decoder", with_change(frozen_bias), ""),
    "the adapter's scale": (TINY, "lora_qv", torch_peer, "adapted", other_scale, ""),
    "learning rate": (TINY, "full", torch_peer, "LEARNING_RATE", 2e-4, "first steps"),
    "theta": (LLAMA, "lora_qv", torch_peer, "from_transformers", other_theta, ""),
    "the padding": (LLAMA, "classifier", torch_peer, "padded", padding_read, ""),
    "a file": (LLAMA, "generate_8", llama_cpp_peer, "save_gguf", other_file, "of its tokens"),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("rung, work, module, name, wrong, words", WRONG.values(), ids=WRONG)
def test_a_difference_is_reported(rung, work, module, name, wrong, words, monkeypatch):
    peer = "llama.cpp" if module is llama_cpp_peer else "torch"
    need(peer)
    case = make_case(rung, work)
    ours = what("lora_np", case)
    monkeypatch.setattr(module, name, wrong)
    problem = compare(what(peer, case), ours).problem
    assert problem and words in problem


def test_a_model_that_cannot_be_compiled_whole_is_an_error(monkeypatch):
    def leave_the_graph(model):
        model.ln_f.register_forward_hook(lambda *_: torch._dynamo.graph_break())

    monkeypatch.setattr(torch_peer, "decoder", with_change(leave_the_graph))
    with pytest.raises(torch._dynamo.exc.Unsupported):
        what("compile", make_case(TINY, "forward"))
