"""sentence-transformers' trainer with MultipleNegativesRankingLoss, on a small BERT made from a configuration."""

import json
import random
import sys
from pathlib import Path

from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.evaluation import EmbeddingSimilarityEvaluator
from sentence_transformers.losses import MultipleNegativesRankingLoss
from sentence_transformers.models import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizerFast, TrainerCallback, set_seed

from stopwatch import Stopwatch


class Times(TrainerCallback):
    """Notes the end of each step."""

    def on_step_end(self, args, state, control, **kwargs):
        watch.step()


watch = Stopwatch()
set_seed(1)
folder = Path("bert")
folder.mkdir(exist_ok=True)
words = [f"{first}{second}{third}" for first in "bdfgk" for second in "aeiou" for third in "lmnrst"]
(folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]))
tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
tokenizer.save_pretrained(folder)
BertModel(
    BertConfig(
        vocab_size=len(words) + 5, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=128, max_position_embeddings=64,
    )
).save_pretrained(folder)  # fmt: skip
transformer = Transformer(str(folder), max_seq_length=32)
model = SentenceTransformer(modules=[transformer, Pooling(64)], device="cpu")
chance = random.Random(1)
rows = [chance.choices(words, k=chance.randint(4, 16)) for _ in range(4200)]
pairs = [(" ".join(row), " ".join(chance.sample(row, len(row) - 1))) for row in rows]
train = Dataset.from_dict({"anchor": [a for a, _ in pairs[:4000]], "positive": [b for _, b in pairs[:4000]]})
held = pairs[4000:]
evaluator = EmbeddingSimilarityEvaluator(
    [a for a, _ in held] * 2,
    [b for _, b in held] + [b for _, b in held[1:] + held[:1]],
    [1.0] * len(held) + [0.0] * len(held),
    name="held-out",
)
args = SentenceTransformerTrainingArguments(
    output_dir="models", num_train_epochs=4, per_device_train_batch_size=16, learning_rate=1e-4, warmup_steps=50,
    eval_strategy="steps", eval_steps=200, save_strategy="steps", save_steps=400, save_total_limit=2,
    logging_steps=50, report_to=[], use_cpu=True, disable_tqdm=True, seed=1,
)  # fmt: skip
trainer = SentenceTransformerTrainer(
    model=model, args=args, train_dataset=train, loss=MultipleNegativesRankingLoss(model), evaluator=evaluator,
    callbacks=[Times()],
)  # fmt: skip
trainer.train()
watch.write()
model.save_pretrained("models/final")
history = trainer.state.log_history
score = "eval_held-out_spearman_cosine"
losses = [row["loss"] for row in history if "loss" in row] + [row[score] for row in history if score in row]
print("LOSSES", json.dumps(losses))
