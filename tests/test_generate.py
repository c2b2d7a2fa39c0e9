"""Generation with kept keys and values, against the whole model run anew for every token."""

from dataclasses import replace

import numpy as np
import pytest

from lora_np.adapters import merge
from lora_np.model import empty_past, forward, generate, make_decoder, next_logits

PROMPTS = np.array([[3, 1, 4], [1, 5, 9], [2, 6, 5]])


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("adapted", [False, True])
def test_logits_with_a_past_are_those_without(language, random_params, random_adapter, dtype, tolerance, adapted):
    """Whatever the pieces in which a text is read: all at once, token by token, or in between."""
    params = random_params(language, dtype)
    adapter = random_adapter(params) if adapted else None
    ids = np.random.default_rng(0).integers(0, language.vocab_size, (3, 7))
    expected, _ = forward(params, ids, language, adapter=adapter)
    decoder = make_decoder(params, language, adapter)
    for cuts in [(7,), (1,) * 7, (3, 1, 2, 1), (2, 5)]:
        past, end = empty_past(decoder, 3), 0
        for n in cuts:
            logits, past = next_logits(decoder, ids[:, end : end + n], past)
            end += n
            assert past.length == end and logits.dtype == dtype and logits.shape == (3, language.vocab_size)
            np.testing.assert_allclose(logits, expected[:, end - 1], rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("adapted", [False, True])
def test_greedy_tokens_are_those_of_the_whole_model(language, random_params, random_adapter, adapted):
    params = random_params(language)
    adapter = random_adapter(params) if adapted else None
    expected = PROMPTS
    for _ in range(4):
        logits, _ = forward(params, expected, language, adapter=adapter)
        expected = np.concatenate([expected, logits[:, -1].argmax(axis=-1)[:, None]], axis=1)
    text = generate(params, PROMPTS, language, 4, adapter)
    assert text.dtype == PROMPTS.dtype and text.tolist() == expected.tolist()
    assert len({tuple(row) for row in text[:, 3:].tolist()}) > 1  # or else nothing depends on the prompt
    for row in range(3):  # a row does not depend on its neighbours
        assert generate(params, PROMPTS[row : row + 1], language, 4, adapter).tolist() == [text[row].tolist()]


def test_a_prompt_of_a_narrow_type(language, random_params):
    """The tokens that come may be larger than it can hold."""
    wide = replace(language, vocab_size=1000)
    params = random_params(wide)
    text = generate(params, PROMPTS.astype(np.uint8), wide, 4)
    assert text.dtype == np.int64 and text.max() > 255
    assert text.tolist() == generate(params, PROMPTS, wide, 4).tolist()


def test_an_adapter_changes_the_text(language, random_params, random_adapter):
    params = random_params(language)
    adapted = generate(params, PROMPTS, language, 4, random_adapter(params))
    assert (generate(params, PROMPTS, language, 4) != adapted).any()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"n_new": 0}, "n_new: got 0, expected a whole number of at least 1"),
        ({"n_new": 2.0}, r"n_new: got 2.0"),
        ({"n_new": 5}, "n_new: 3 tokens and 5 new ones are more than n_positions = 7"),
        ({"ids": np.array([[13]])}, "ids: 13 is outside the table of 13 rows"),
        ({"ids": np.array([1, 2])}, r"ids: got shape \(2,\)"),
    ],
)
def test_bad_input_is_named(language, random_params, changes, message):
    arguments = {"ids": PROMPTS, "n_new": 4, **changes}
    with pytest.raises(ValueError, match=message):
        generate(random_params(language), config=language, **arguments)


@pytest.mark.parametrize(
    "ids, error, message",
    [
        (PROMPTS[:2], ValueError, "ids: got 2 rows, expected 3 as in the past"),
        (PROMPTS[:, [0, 1, 2, 0, 1]], ValueError, "ids: 3 tokens and 5 more are more than n_positions = 7"),
        (PROMPTS[:, :0], ValueError, r"ids: got shape \(3, 0\)"),
        (PROMPTS[0], ValueError, r"ids: got shape \(3,\)"),
        (PROMPTS.astype(float), TypeError, "ids: got float64, expected an array of integers"),
    ],
)
def test_tokens_that_do_not_fit_the_past(language, random_params, ids, error, message):
    decoder = make_decoder(random_params(language), language)
    _, past = next_logits(decoder, PROMPTS, empty_past(decoder, 3))
    with pytest.raises(error, match=message):
        next_logits(decoder, ids, past)


def test_a_classifier_generates_nothing(language, random_params):
    with pytest.raises(ValueError, match="expected a language model"):
        generate(random_params(language), PROMPTS, replace(language, n_classes=2), 1)


def test_an_adapter_of_another_model_is_refused(language, random_params, random_adapter):
    params = random_params(language)
    adapter = random_adapter(params)
    shallow = {name: array for name, array in params.items() if not name.startswith("blocks.1.")}
    with pytest.raises(ValueError, match="adapter: the model has no layer blocks.1"):
        merge(shallow, adapter)
    with pytest.raises(ValueError, match="adapter: the model has no layer blocks.1"):
        generate(shallow, PROMPTS, language, 1, adapter)
