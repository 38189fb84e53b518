r"""Draw 60 pictures with questions and answers in JSON, and make a tiny vision-language model for them.

    python examples/pictures.py demo
    holdwater train --model demo/model --data demo/rows.jsonl --selective-loss json --selective-loss-from 2 \
        --train-seq-length 128 --learning-rate 0.003 --steps 200 --eval-interval 100 --out runs/pictures

The model is a SmolVLM of random weights, so nothing is downloaded, and it knows only what these rows teach. To
train a real one, write its folder or its name instead of `demo/model`, and leave out the learning rate.
"""

import argparse
import json
import random
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from PIL import Image, ImageDraw

COLOURS = ("red", "green", "blue", "orange", "purple", "black")
SHAPES = ("circle", "square", "triangle")
QUESTION = "Which shape is this, and of which colour? Answer in JSON."
SPECIAL = [
    "<pad>", "<s>", "<|im_start|>", "<end_of_utterance>", "<image>", "<fake_token_around_image>", "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)),
]  # fmt: skip
"""Tokens that the text of a picture is made of, and those of conversations."""
TEMPLATE = """{% for message in messages %}<|im_start|>{{ message.role | capitalize }}: \
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<end_of_utterance>
{% endfor %}{% if add_generation_prompt %}<|im_start|>Assistant: {% endif %}"""
TILE, PATCH, SCALE = 64, 8, 2
"""Pixels of a tile's edge and of a patch's, and how many patches in a row become one token."""


def main() -> None:
    """Write the pictures, the rows and the model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="is made")
    folder = parser.parse_args().folder
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    rows = [draw(folder, number) for number in range(60)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    make_model(folder / "model", [QUESTION, *(row["completion"] for row in rows)])
    print(f"{len(rows)} rows in {folder / 'rows.jsonl'}, a model in {folder / 'model'}")


def draw(folder: Path, number: int) -> dict[str, str]:
    """Draw a shape somewhere on a grey picture; return its row.

    Args:
        folder: The picture lies in its folder `pictures`.
        number: Of the row.
    """
    chance = random.Random(number)  # noqa: S311 - drawings are no secrets
    colour, shape, edge = chance.choice(COLOURS), chance.choice(SHAPES), chance.randint(24, 40)
    width, height = chance.randint(64, 96), chance.randint(64, 96)
    left, top = chance.randint(4, width - edge - 4), chance.randint(4, height - edge - 4)
    box = (left, top, left + edge, top + edge)
    picture = Image.new("RGB", (width, height), "lightgrey")
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(left, top + edge), (left + edge, top + edge), (left + edge / 2, top)], fill=colour)
    picture.save(folder / "pictures" / f"{number}.png")
    answer = json.dumps({"shape": shape, "colour": colour})
    return {"image": f"pictures/{number}.png", "prompt": QUESTION, "completion": answer}


def make_model(folder: Path, texts: list[str]) -> None:
    """Write a SmolVLM of random weights, its tokenizer, and the settings of its processor.

    Args:
        folder: Is made.
        texts: What the tokenizer learns its tokens from.
    """
    torch.manual_seed(0)
    tokenizer = make_tokenizer(texts)
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2,
        "max_position_embeddings": 2048, "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "image_size": TILE, "patch_size": PATCH, "initializer_range": 0.2,
    }  # fmt: skip
    config = transformers.SmolVLMConfig(
        text_config=text, vision_config=vision, scale_factor=SCALE, pad_token_id=tokenizer.pad_token_id,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    transformers.AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = {
        "image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": TILE},
        "max_image_size": {"longest_edge": TILE},
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")


def make_tokenizer(texts: list[str]) -> Any:  # noqa: ANN401 - of Transformers
    """A byte-level tokenizer.

    Args:
        texts: What it learns its tokens from.
    """
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = tokenizers.decoders.ByteLevel()
    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=letters, show_progress=False
    )
    learned.train_from_iterator(texts, trainer)
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "<end_of_utterance>"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=learned, **names)


if __name__ == "__main__":
    main()
