"""The graded items, a file for each set of exercises."""

from . import (
    backward_pass,
    compressed,
    costs,
    directions,
    fine_tuning,
    forward_pass,
    gradients,
    lora_layer,
    parts,
    rank_and_svd,
    variants,
)

SETS = {
    "01_rank_and_svd": rank_and_svd,
    "02_gradients_by_hand": gradients,
    "03_forward": forward_pass,
    "04_backward": backward_pass,
    "05_lora_layer": lora_layer,
    "06_full_and_lora": fine_tuning,
    "07_directions_of_an_update": directions,
    "08_what_it_costs": costs,
    "09_adapters_as_parts": parts,
    "10_quantised_and_pruned": compressed,
    "11_variants": variants,
}
ITEMS = {item.name: item for module in SETS.values() for item in module.ITEMS}
