"""llama.cpp refuses what the doctor says, and with the layers that the doctor says it applies, computes the same."""

import numpy as np
import pytest

from lora_np.tasks.adapter_effect import attach
from lora_np.tasks.doctor import diagnose, examine

from ..adapter_faults import GGUF_FAULTS, REFUSED_GGUF
from ..adapter_files import gguf_tensors, random_factors, write_gguf_adapter
from ..llama_files import TOKENS, written_gguf
from .llama_cpp import log_probabilities, need_llama_cpp, our_log_probabilities

pytestmark = pytest.mark.oracle

IDS = [3, 1, 4, 1, 5]
HEALTHY = {"healthy": (dict, {}), "no alpha": (dict, {"adapter_lora_alpha": None})}
FAULTS = {name: (change, fields) for name, (change, fields, *_) in GGUF_FAULTS.items()}
METADATA = {name: (dict, fields) for name, (fields, _) in REFUSED_GGUF.items()}
PAIR = {"token_embd.weight.lora_a": np.ones((len(TOKENS), 4)), "token_embd.weight.lora_b": np.ones((12, 4))}
CASES = HEALTHY | FAULTS | METADATA | {"embedding of this base": (lambda tensors: tensors | PAIR, {})}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The file of a tiny tied Llama, and its weights."""
    need_llama_cpp()
    file = tmp_path_factory.mktemp("base") / "model.gguf"
    return file, written_gguf(file, d_model=12, d_ff=20, tied=True)[0]


@pytest.mark.parametrize("name", CASES)
def test_llama_cpp_applies_and_refuses_as_the_doctor_says(name, base, tmp_path):
    (file, params), (change, fields) = base, CASES[name]
    tensors = gguf_tensors(random_factors(params, ["attn_q", "attn_k", "attn_v"], file="gguf"), 6)
    adapter = write_gguf_adapter(tmp_path / "a.gguf", change(tensors), **fields)
    faults = diagnose(adapter, file)["faults"]
    if any(fault.startswith("llama.cpp refuses") for fault in faults):
        with pytest.raises(RuntimeError):
            log_probabilities(file, [IDS], tmp_path, adapters=[(adapter, 1.0)])
        return
    [rows] = log_probabilities(file, [IDS], tmp_path, adapters=[(adapter, 1.0)])
    task, treatment, _ = examine(adapter, file)
    if "NaN" in name:
        assert faults
        return
    adapters = (attach(treatment, np.float32)[0], None)
    ours, of_base = (next(our_log_probabilities(task.params, task.config, [IDS], each)) for each in adapters)
    np.testing.assert_allclose(rows, ours, atol=1e-4)
    assert np.array_equal(of_base, ours) == bool(faults)
