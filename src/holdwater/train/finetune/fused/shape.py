"""Which models the fused step knows, and their sizes: Llama and those that are built like it.

Built like it: RMS norms before attention and before a gated SiLU network, rotary positions, grouped queries; heads
of queries and keys may be normalised. A model that differs in anything is named with the reason, and is trained by
autograd instead.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from holdwater.train.finetune.model.lora import LoraLinear
from holdwater.train.finetune.model.plain_head import has_plain_head

KNOWN = ("llama", "mistral", "qwen2", "qwen3", "qwen2_5_vl_text", "qwen3_vl_text")
"""Model types of Transformers; the last two are known under pictures only."""
NORMED = ("qwen3", "qwen3_vl_text")
"""Those that normalise each head of queries and keys."""
ROTARY = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary positions whose frequencies stay as they are, whatever the length."""
HEAD_WIDTHS = (32, 64, 128)
"""Of heads that the kernels of a CUDA device take."""
ALIGNMENT = 16
"""Widths are multiples of this, so rows begin where the device reads fastest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """Sizes of a decoder."""

    layers: int
    width: int
    """Of the residual stream."""
    heads: int
    kv_heads: int
    """Heads of keys and values; each serves `heads / kv_heads` queries."""
    head_width: int
    inner: int
    """Width of the gated network."""
    vocabulary: int
    epsilon: float
    """Added to the mean square in a norm."""
    normed_heads: bool = False
    """Whether each head of queries and keys is normalised."""

    @classmethod
    def of(cls, config: Any) -> "DecoderShape":  # noqa: ANN401 - a configuration of Transformers
        """Read the sizes.

        Args:
            config: Of a model that `why_not` has nothing against.
        """
        heads = int(config.num_attention_heads)
        return cls(
            layers=int(config.num_hidden_layers),
            width=int(config.hidden_size),
            heads=heads,
            kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
            head_width=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
            inner=int(config.intermediate_size),
            vocabulary=int(config.vocab_size),
            epsilon=float(config.rms_norm_eps),
            normed_heads=config.model_type in NORMED,
        )

    @property
    def query_width(self) -> int:
        """Of all queries of a token together."""
        return self.heads * self.head_width

    @property
    def key_width(self) -> int:
        """Of all keys of a token together; values have the same."""
        return self.kv_heads * self.head_width

    @property
    def attention_width(self) -> int:
        """Queries, keys and values of a token together."""
        return self.query_width + 2 * self.key_width


def body_of(model: Any) -> Any:  # noqa: ANN401 - of Transformers
    """The layers of a causal or vision-language model, with the norm after them and rotary positions.

    Args:
        model: With a head.
    """
    inner = model.model
    return next((getattr(inner, name) for name in ("language_model", "text_model") if hasattr(inner, name)), inner)


def why_not(model: Any, *, length: int, device: str = "cuda") -> str:  # noqa: ANN401 - of Transformers
    """Why a model cannot take the fused step; empty where it can.

    Args:
        model: With adapters.
        length: Tokens in a row.
        device: Where steps would be taken.
    """
    config = model.config.get_text_config()
    kind = str(getattr(config, "model_type", "unknown"))
    if kind not in KNOWN:
        return f"a model of type {kind} is not among {', '.join(KNOWN)}"
    width = DecoderShape.of(config).head_width
    if device == "cuda" and width not in HEAD_WIDTHS:
        return f"its heads are {width} wide, and the kernels know {', '.join(map(str, HEAD_WIDTHS))}"
    return next((reason for reason in _reasons(model, DecoderShape.of(config), length) if reason), "")


def _reasons(model: Any, shape: DecoderShape, length: int) -> Iterator[str]:  # noqa: ANN401
    """What stands against a model of a known type; empty strings where nothing does."""
    config = model.config.get_text_config()
    if getattr(config, "hidden_act", "silu") != "silu":
        yield f"its activation is {config.hidden_act}, not silu"
    if getattr(config, "attention_dropout", 0):
        yield "it has dropout in attention"
    window = getattr(config, "sliding_window", None)
    if window is not None and getattr(config, "use_sliding_window", True) and window < length:
        yield f"its attention sees {window} tokens, and a row has {length}"
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rotary not in ROTARY:
        yield f"its rotary positions are of the kind {rotary}, which depends on the length"
    if shape.head_width & (shape.head_width - 1):
        yield f"its heads are {shape.head_width} wide, which is no power of 2"
    if any(width % ALIGNMENT for width in (shape.width, shape.inner, shape.query_width, shape.key_width)):
        yield f"a width is no multiple of {ALIGNMENT}"
    if not has_plain_head(model) or model.get_output_embeddings().weight.requires_grad:
        yield "its logits are more than a product with a frozen head"
    yield from map(_against_layer, body_of(model).layers)


def _against_layer(layer: Any) -> str:  # noqa: ANN401 - of Transformers
    """Why one layer cannot be fused; empty where it can."""
    attention, network = layer.self_attn, layer.mlp
    queries = [getattr(attention, name) for name in ("q_proj", "k_proj", "v_proj")]
    others = [attention.o_proj, network.gate_proj, network.up_proj, network.down_proj]
    bases = [one.base if isinstance(one, LoraLinear) else one for one in (*queries, *others)]
    if not all(isinstance(base, nn.Linear) for base in bases):
        return "a layer holds something else than plain linear layers"
    if any(base.bias is not None for base in bases[3:]):
        return "a linear layer outside of queries, keys and values has a bias"
    if hasattr(attention, "q_norm") and any(base.bias is not None for base in bases):
        return "queries and keys are normalised and have a bias"
    if any(base.weight.requires_grad for base in bases) or layer.input_layernorm.weight.requires_grad:
        return "its own weights are trained"
    return ""
