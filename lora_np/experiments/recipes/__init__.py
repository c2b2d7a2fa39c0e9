"""The experiments by name, in the order of the gallery; `laboratory.py` says what a recipe is."""

RECIPES = (
    "main_job",
    "rank_sweep",
    "matrices",
    "layers",
    "subspace_ranks",
    "subspace_seeds",
    "amplification",
    "truncation",
    "intruders",
    "dialect",
    "learning_rate",
    "low_data",
    "prompting",
    "batch_size",
    "attention_or_mlp",
    "scaling",
    "variants",
    "compression",
    "cost",
    "planted_rank",
)
