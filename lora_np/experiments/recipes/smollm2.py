"""A real language model as the base: what do the same methods reach on SmolLM2-135M-Instruct?

The base has 134,515,008 parameters and was pretrained on two trillion tokens. Its weights are those of a file in Q4_1,
expanded. It is taught Rotten Tomatoes' sentiment in one pass over the snippets in batches of 16: with a head alone, with
LoRA on all linear layers at rank 4, which is less than 1 % of the parameters, and in full. Each method's rate has the
lowest validation loss, from one seed.
"""

from ..drawing import COLOURS, dots, panels
from ..evidence import ahead, as_good, differences
from ..methods import METHODS, QUICK, lora, run_at

CLAIM = "LoRA with less than 1 % of the parameters comes close to full fine-tuning (Hu et al. 2021)."
KEYS = ("head", "all_r4", "full")
GUESSES = {"head": 2e-3, "all_r4": 5e-4, "full": 5e-5}
SETTINGS = {"base": "smollm2", "batch_size": 16}


def runs(seeds, quick):
    """(method, seed) -> run."""
    rates, more = read_json(CHOSEN)["chosen"], QUICK if quick else {}
    return {
        (key, seed): run_at(rates[f"smollm2, {key}"], key, seed, **SETTINGS | more) for key in KEYS for seed in seeds
    }


def rates_to_tune():
    """Name in settings.json -> (the rate that is tried first, function rate -> the runs that judge it)."""

    def runs_at(key):
        return lambda rate: [run_at(rate, key, 100, test=False, **SETTINGS)]

    return {f"smollm2, {key}": (guess, runs_at(key)) for key, guess in GUESSES.items()}
