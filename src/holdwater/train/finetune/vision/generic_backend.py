"""Eager steps of any vision-language model by its own forward, one row at a time.

Models differ in how they take the pictures of several examples, and agree in how they take those of one.
"""

from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from holdwater.errors import ModelError
from holdwater.oom.out_of_memory import is_out_of_memory
from holdwater.signal_errors import not_the_scripts
from holdwater.train.finetune.data.packing import Packed
from holdwater.train.finetune.losses import CHUNK, IGNORED, chunked_cross_entropy
from holdwater.train.finetune.model.plain_head import has_plain_head
from holdwater.train.finetune.step.eager import EagerBackend
from holdwater.train.finetune.step.quantized_linear import quantize_linear_layers
from holdwater.train.finetune.vision.generic_packing import ProcessedRows
from holdwater.train.finetune.vision.generic_processor import KINDS_OF_TOKENS, Inputs
from holdwater.train.settings import TrainSettings

KINDS_BY_TOKEN = ("token_type_ids", KINDS_OF_TOKENS)
"""Some models want these in training, also where there is no picture."""


class GenericVisionBackend(EagerBackend):
    """Eager autograd by the model's own forward. Batches are drawn into the host's memory."""

    sends_batches: ClassVar[bool] = True

    def __init__(
        self,
        model: Any,  # noqa: ANN401 - of Transformers
        settings: TrainSettings,
        takes: frozenset[str],
        *,
        text: str,
        bits: int | None,
    ) -> None:
        """Put a model on its device.

        Args:
            model: On the CPU, with adapters.
            settings: Of the run.
            takes: The names that the model's forward takes.
            text: The name of its language model.
            bits: Of a frozen weight of the language model; None leaves them as they are.
        """
        if bits is not None:
            quantize_linear_layers(model, bits, settings.device, within=text)
        super().__init__(model, settings)
        self._takes = takes

    def propagate(self, batch: Packed, share: float, *, seed: int) -> None:  # noqa: ARG002 - of a backend
        """Add the gradient of some rows, times `share`, to the model's; the seed is not needed."""
        rows, total = cast("ProcessedRows", batch), 0.0
        for row in rows.rows():
            mean = row_loss(self._model, self._takes, row, chunk=CHUNK) / batch.weight
            (mean * share).backward()  # type: ignore[no-untyped-call]
            total += mean.item()
        self._mean += total * share
        self.micro_batches += 1

    def evaluate(self, batch: Packed) -> float:
        """The weighted sum of cross-entropies of some rows in nats; the caller has turned gradients off."""
        rows = cast("ProcessedRows", batch).rows()
        return sum(row_loss(self._model, self._takes, row, chunk=CHUNK).item() for row in rows)

    @torch.no_grad()
    def check(self, batch: ProcessedRows) -> None:
        """Try the model on some rows.

        Args:
            batch: With pictures.

        Raises:
            ModelError: Its own code fails on them.
        """
        model = self._model.eval()
        try:
            self.evaluate(batch)
        except not_the_scripts(Exception) as error:  # each model has errors of its own
            if is_out_of_memory(error):
                raise
            first = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"the model's own code fails on what its own processor makes of an example with pictures "
                f"({first[:300]}); its configuration and that of its processor may not belong together"
            ) from error
        model.train()

    @torch.no_grad()
    def answer(self, prompt: Inputs, count: int, *, padding: int) -> list[int]:
        """Let the model continue a prompt with the likeliest tokens.

        Args:
            prompt: As the model's forward takes it.
            count: Tokens to add, at most.
            padding: The token that stands for none.

        Returns:
            What was added.
        """
        tokens = prompt["input_ids"].to(self._model.device)
        given = _on_device(self._model, prompt) | {"attention_mask": torch.ones_like(tokens)}
        found = self._model.eval().generate(**given, max_new_tokens=count, do_sample=False, pad_token_id=padding)
        self._model.train()
        added: list[int] = found[0].tolist()[tokens.shape[1] :]
        return added


def row_loss(model: Any, takes: frozenset[str], row: ProcessedRows, *, chunk: int) -> Tensor:  # noqa: ANN401
    """The weighted sum of cross-entropies over the tokens of one row, in nats.

    Args:
        model: Of Transformers, with or without adapters, on its device.
        takes: The names that its forward takes.
        row: One row.
        chunk: Tokens whose logits exist at once, where the head is plain.

    Returns:
        The sum, in float32. Shape ().
    """
    given = _given(model, takes, row)
    targets, weights = (one.to(model.device).flatten() for one in (row.targets, row.weights))
    if has_plain_head(model):
        hidden = getattr(model, model.base_model_prefix)(**given, use_cache=False).last_hidden_state.flatten(0, 1)
        return chunked_cross_entropy(hidden, model.get_output_embeddings().weight, targets, weights, chunk=chunk)
    logits = model(**given, use_cache=False).logits.flatten(0, 1).float()
    losses = nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
    return (losses * weights).sum()


def _given(model: Any, takes: frozenset[str], row: ProcessedRows) -> Inputs:  # noqa: ANN401 - of Transformers
    """All that the forward of a model takes for one row."""
    kinds = {name: torch.zeros_like(row.tokens) for name in KINDS_BY_TOKEN if name in takes}
    known = {"input_ids": row.tokens, "attention_mask": (row.segments > 0).long()}
    return _on_device(model, kinds | row.inputs[0] | known)


def _on_device(model: Any, inputs: Inputs) -> Inputs:  # noqa: ANN401 - of Transformers
    """Inputs on a model's device; those with fractions in the type of its weights."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
