"""Training: optimiser, learning-rate schedule, gradient accumulation, training loop and saved state."""

from ..adapters.adalora_allocation import RankAllocation, allocating, budget_at, keep_most_important, settled_from
from .accumulate import mean_over_shards, split_batch
from .adamw import AdamW, adamw_update
from .clip import clip_by_global_norm, global_norm
from .dpo import PairBatch, dpo, dpo_objective, pair_log_probs
from .evaluate import CLASSIFIER_BATCH, LANGUAGE_BATCH, evaluate, language_loss
from .fine_tune import adapter_optimiser, attach, fine_tuning, model_objective, trainable_arrays
from .grpo import advantages, complete, grpo, grpo_objective, prompt_batches, token_rows
from .schedule import learning_rate_at
from .state import TrainState, saved_run
from .streams import stream
from .threads import available_cores, blas_threads, process_environment, shard_threads, worthwhile_threads
from .trainer import TrainConfig, initial_state, train, train_step, whole_label

__all__ = [
    "AdamW", "PairBatch", "RankAllocation", "TrainConfig", "TrainState", "adamw_update",
    "adapter_optimiser", "advantages", "allocating", "attach", "available_cores", "blas_threads", "budget_at",
    "clip_by_global_norm", "complete", "dpo", "dpo_objective", "evaluate", "fine_tuning", "global_norm", "grpo",
    "grpo_objective", "initial_state", "keep_most_important", "language_loss", "learning_rate_at",
    "mean_over_shards", "model_objective", "pair_log_probs", "process_environment", "prompt_batches", "saved_run",
    "settled_from", "shard_threads", "split_batch", "stream", "token_rows", "train", "train_step", "trainable_arrays",
    "whole_label", "worthwhile_threads",
]  # fmt: skip
