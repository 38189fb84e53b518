"""Let a model of Transformers compute its layers again in the backward pass, or keep what they make.

Transformers 5.24 has renamed its functions, and warns of the names before.
"""

from typing import Any


def computes_again(model: Any) -> bool:  # noqa: ANN401 - of Transformers
    """Whether any layer of a model is computed again in the backward pass."""
    return any(getattr(module, "gradient_checkpointing", False) for module in model.modules())


def compute_again(model: Any, how: dict[str, object]) -> None:  # noqa: ANN401 - of Transformers
    """Keep what goes into each layer, and compute the layer again in the backward pass.

    Args:
        model: Of Transformers.
        how: For `torch.utils.checkpoint.checkpoint`.
    """
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=how)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)


def keep_activations(model: Any) -> None:  # noqa: ANN401 - of Transformers
    """Keep what all layers make for the backward pass."""
    if hasattr(model, "activation_checkpointing_disable"):
        model.activation_checkpointing_disable()
    else:
        model.gradient_checkpointing_disable()
    model.disable_input_require_grads()
