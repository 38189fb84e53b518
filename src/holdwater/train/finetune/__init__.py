"""Fine-tuning of causal language models: the parts that `holdwater train --model` is made of."""

PRELOADED_MODEL = "HOLDWATER_PRELOADED_MODEL"
"""The variable that names a model whose parts are loaded once, for all processes of a run."""
