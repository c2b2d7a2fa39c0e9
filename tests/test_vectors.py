"""The package still computes every reference vector, in float64: operations, models, training, files.

PyTorch, transformers, PEFT and `gguf` have judged these numbers (`oracles/`), so a change here is a mistake there.
"""

import pytest

from lora_np.reference import load_case, load_manifest
from lora_np.reference.cases import reference_cases
from lora_np.reference.tolerances import allowed, shares

ENTRIES, FOLDER = load_manifest()


@pytest.fixture(scope="module")
def cases():
    return reference_cases()


@pytest.mark.parametrize("id", ENTRIES)
def test_a_case_is_computed_again(id, cases):
    reference, records = load_case(ENTRIES[id], "float64", FOLDER), ENTRIES[id]["tensors"]
    inputs = {record["name"]: reference[record["name"]] for record in records if record["stage"] == "input"}
    got = cases[id].compute(ENTRIES[id]["settings"], inputs)
    assert list(got) == [record["name"] for record in records if record["stage"] != "input"]
    for record in records[len(inputs) :]:
        array, expected = got[record["name"]], reference[record["name"]]
        assert array.shape == expected.shape, record["name"]
        assert (shares(array, expected, *allowed(record, "float64")) <= 1).all(), record["name"]
