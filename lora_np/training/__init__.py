"""Training: optimiser, schedule, gradients over shards, the loop, and its state on disk."""

from .accumulate import accumulated_gradients, split_batch
from .adamw import AdamW, adamw_update
from .classify import train_classifier
from .clip import clip_by_global_norm, global_norm
from .evaluate import evaluate
from .groups import balanced_groups
from .language import language_loss, train_language
from .progress import progress_bar
from .protocol import fine_tuning_config
from .rank_allocation import (
    RankAllocation,
    allocating,
    budget_at,
    direction_importance,
    keep_most_important,
    settled_from,
)
from .schedule import learning_rate_at
from .state import TrainState, load_state, save_state
from .streams import stream
from .task import adapter_optimiser, attach, model_objective, trainable_arrays
from .threads import available_cores, blas_threads, process_environment, shard_threads
from .trainer import TrainConfig, initial_state, train, train_step

__all__ = [
    "AdamW",
    "RankAllocation",
    "TrainConfig",
    "TrainState",
    "accumulated_gradients",
    "adamw_update",
    "adapter_optimiser",
    "allocating",
    "attach",
    "available_cores",
    "balanced_groups",
    "blas_threads",
    "budget_at",
    "clip_by_global_norm",
    "direction_importance",
    "evaluate",
    "fine_tuning_config",
    "global_norm",
    "initial_state",
    "keep_most_important",
    "language_loss",
    "learning_rate_at",
    "load_state",
    "model_objective",
    "process_environment",
    "progress_bar",
    "save_state",
    "settled_from",
    "shard_threads",
    "split_batch",
    "stream",
    "train",
    "train_classifier",
    "train_language",
    "train_step",
    "trainable_arrays",
]
