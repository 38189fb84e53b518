"""Four kinds of tokenizer, trained on the spot."""

from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

LINES = [
    '{"name": "Grüße 日本 😀", "list": [1, 2.5e-3, null, true, false], "b c": {"d": "e\\"f\\\\g\\u00e9"}}',
    '{\n  "name": "a {b} [c], d: e",\n\t"list": []\n}',
    "Here is a text with words, ```json and more: 0 1 2 3 4 5 6 7 8 9 + E",
    "<|im_start|>user\nassistant",
] * 5
UNKNOWN = "<unk>"
SPECIAL = [UNKNOWN, "<|im_start|>", "<|im_end|>", "</s>"]
TEMPLATE = (
    "{% for one in messages %}<|im_start|>{{ one.role }}\n{{ one.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _byte_level(lines: Sequence[str], *, trims: bool = False) -> Tokenizer:
    """As of GPT-2, Llama 3 and Qwen; with `trims`, offsets leave out white space, as of RoBERTa."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.post_processor = processors.ByteLevel(trim_offsets=trims)
    return _trained(made, lines, trainers.BpeTrainer, 330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())


def _unigram(lines: Sequence[str]) -> Tokenizer:
    """As of T5 and XLM-RoBERTa: a space begins each word, and the text too."""
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return _trained(made, lines, trainers.UnigramTrainer, 160, unk_token=UNKNOWN)


def _byte_fallback(lines: Sequence[str]) -> Tokenizer:
    """As of Llama 2 and Gemma: characters that are not known are written as bytes."""
    made = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token=UNKNOWN))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence([
        decoders.Replace("▁", " "),
        decoders.ByteFallback(),
        decoders.Fuse(),
        decoders.Strip(" ", 1, 0),
    ])
    written = [f"<0x{byte:02X}>" for byte in range(256)]
    return _trained(made, lines, trainers.BpeTrainer, 420, special=[*SPECIAL, *written], limit_alphabet=40)


def _word_piece(lines: Sequence[str]) -> Tokenizer:
    """As of BERT: white space is lost."""
    made = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return _trained(made, lines, trainers.WordPieceTrainer, 200)


def _characters(lines: Sequence[str]) -> Tokenizer:
    """One token a character."""
    made = Tokenizer(models.BPE(unk_token=UNKNOWN))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Split("", behavior="isolated"), decoders.Fuse()
    return _trained(made, lines, trainers.BpeTrainer, 200)


def _trained(
    made: Tokenizer,
    lines: Sequence[str],
    trainer: Any,
    size: int,
    *,
    special: Sequence[str] = SPECIAL,
    **options: Any,
) -> Tokenizer:
    """Train a tokenizer."""
    given = trainer(vocab_size=size, special_tokens=list(special), show_progress=False, **options)
    made.train_from_iterator(lines, given)
    return made


KINDS: dict[str, Callable[[Sequence[str]], Tokenizer]] = {
    "byte level": _byte_level,
    "byte level, trimmed": lambda lines: _byte_level(lines, trims=True),
    "unigram": _unigram,
    "byte fallback": _byte_fallback,
    "word piece": _word_piece,
    "characters": _characters,
}
"""Of four kinds; two of them in two ways."""


def small_tokenizer(kind: str, lines: Sequence[str] = LINES) -> Any:
    """A tokenizer of Transformers that was trained on some lines, with a chat template."""
    special = {"unk_token": UNKNOWN, "eos_token": "</s>", "additional_special_tokens": SPECIAL[1:3]}
    made = PreTrainedTokenizerFast(tokenizer_object=KINDS[kind](lines), **special)
    made.chat_template = TEMPLATE
    return made
