"""Training: optimiser, schedule, gradients over shards, the loop, and its saved state."""

from ..adapters.adalora_allocation import (
    RankAllocation,
    allocating,
    budget_at,
    direction_importance,
    keep_most_important,
    settled_from,
)
from .accumulate import mean_over_shards, split_batch
from .adamw import AdamW, adamw_update
from .clip import clip_by_global_norm, global_norm
from .evaluate import CLASSIFIER_BATCH, LANGUAGE_BATCH, evaluate, language_loss
from .fine_tune import fine_tuning
from .groups import balanced_groups
from .progress import Progress, progress_of
from .schedule import learning_rate_at
from .state import TrainState, load_state, save_state, saved_run
from .streams import stream
from .threads import available_cores, blas_threads, process_environment, shard_threads, worthwhile_threads
from .trainable import adapter_optimiser, attach, model_objective, trainable_arrays
from .trainer import TrainConfig, initial_state, train, train_step, whole_label
