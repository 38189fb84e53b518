"""Code for `spacy train`: documents made from rules, and a callback that notes each update's end."""

import atexit
import random
import sys
from pathlib import Path

import spacy
from spacy.cli.init_config import init_config
from spacy.tokens import DocBin, Span

sys.path.insert(0, str(Path(__file__).resolve().parent))
from stopwatch import Stopwatch

NAMES = ("Ada Lovelace", "Alan Turing", "Grace Hopper", "Barbara Liskov", "Donald Knuth", "Edsger Dijkstra")
PLACES = ("London", "New York", "Zurich", "Kyoto", "Buenos Aires", "Lagos")
WORDS = "wrote read met found liked left saw met the paper machine letter book in from near and with".split()


watch = Stopwatch()


@spacy.registry.callbacks("stopwatch")
def make_stopwatch():
    """Note when each update begins; spaCy asks for this twice."""
    return watch.step


def documents(nlp, count: int, seed: int) -> DocBin:
    """Documents with names of people and places between words."""
    chance, docs = random.Random(seed), DocBin()
    for _ in range(count):
        words, spans = [], []
        for _ in range(chance.randint(4, 12)):
            words += chance.choices(WORDS, k=chance.randint(1, 6))
            label, names = chance.choice((("PERSON", NAMES), ("GPE", PLACES)))
            name = chance.choice(names).split()
            spans.append((len(words), len(words) + len(name), label))
            words += name
        doc = spacy.tokens.Doc(nlp.vocab, words=words)
        doc.ents = [Span(doc, *span[:2], label=span[2]) for span in spans]
        docs.add(doc)
    return docs


if __name__ != "__main__":
    atexit.register(watch.write)
else:
    blank = spacy.blank("en")
    folder = Path(sys.argv[1])
    documents(blank, 3000, 1).to_disk(folder / "train.spacy")
    documents(blank, 400, 2).to_disk(folder / "dev.spacy")
    config = init_config(
        lang="en", pipeline=["ner"], optimize="efficiency", gpu=False
    )  # as `spacy init config` does
    config["training"] |= {"max_steps": int(sys.argv[2]), "seed": 1, "eval_frequency": 200}
    config["training"]["before_update"] = {"@callbacks": "stopwatch"}
    config.to_disk(folder / "config.cfg")
