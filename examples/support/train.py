"""Messages and the first model: ``python train.py``. A seeded grammar writes them; no real ones are shipped.

The first model has seen each wish said in two ways. ``data/new.npz`` holds what agents answered since: customers say
things in more ways than that.
"""

import json
import shutil
from pathlib import Path

import numpy as np
from model import numbers

from leptonai.improve.train.job import parse, train

HERE = Path(__file__).parent
HELLO = ("", "hello", "hi there", "good morning", "excuse me", "hey")
END = ("", "please", "thanks", "asap", "can you help", "thank you in advance")
THING = ("lamp", "kettle", "jacket", "bike", "desk", "phone", "toaster", "tent")
WISHES = {  # the first two of each are what the first model knows
    "track/late": ("my {t} is late", "the {t} should have come last week", "still no sign of the {t} after ten days",
                   "how much longer must i wait for the {t}"),
    "track/where": ("where is my {t}", "please track my {t}", "has the {t} left yet",
                    "when will the {t} come to my door"),
    "cancel/before": ("cancel my order of the {t}", "i do not want the {t} any more please cancel",
                      "stop the {t} before you ship it", "i clicked twice so drop one {t}"),
    "cancel/after": ("cancel the {t} that was shipped", "the {t} is under way but i want to cancel",
                     "can i refuse the {t} when the driver comes", "send the {t} in the van back"),
    "refund/damaged": ("the {t} arrived broken i want a refund", "refund me the {t} is damaged",
                       "there is a crack in the {t}", "the {t} came in pieces"),
    "refund/changed": ("i want a refund i changed my mind about the {t}", "can i return the {t}",
                       "the {t} is not my taste after all", "how do i give the {t} back"),
    "address/order": ("send the {t} to another address", "change the address of my {t} order",
                      "the {t} must go to my office instead", "i moved so bring the {t} elsewhere"),
    "address/account": ("change my address", "how do i change the address in my account",
                        "i moved house last month", "my street is wrong in your system"),
    "password/forgot": ("i forgot my password", "reset my password",
                        "i cannot remember how to log in", "the login does not know me any more"),
    "password/locked": ("my account is locked", "it says too many attempts",
                        "i was shut out after three tries", "you blocked me"),
    "invoice/copy": ("send me the invoice of the {t}", "i need a copy of the bill for the {t}",
                     "my accountant asks for a receipt of the {t}", "where do i find the paper for tax"),
    "invoice/wrong": ("the invoice of the {t} is wrong", "the bill says two {t} but i bought one",
                      "you charged me twice", "the amount for the {t} does not add up"),
    "hours/shop": ("when are you open", "what are your opening hours",
                   "until when can i come by", "is the shop closed on sunday"),
    "person/ask": ("i want to talk to a person", "give me a human",
                   "this robot is no use", "let me speak with somebody real"),
}  # fmt: skip


def message(rng: np.random.Generator, ways: int) -> tuple[str, int]:
    """What a customer writes, and the number of the reply that an agent would send."""
    label = int(rng.integers(len(WISHES)))
    wish = list(WISHES.values())[label][int(rng.integers(ways))]
    return f"{rng.choice(HELLO)} {wish.format(t=rng.choice(THING))} {rng.choice(END)}".strip(), label


def main(rows: int = 1200, epochs: int = 8) -> None:
    data, model = HERE / "data", HERE / "model"
    data.mkdir(exist_ok=True)
    model.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    parts = {"base": (rows, 2), "new": (2 * rows, 4), "test": (600, 4), "live": (400, 4)}
    texts = {name: [message(rng, ways) for _ in range(count)] for name, (count, ways) in parts.items()}
    learnt = sorted({w for text, _ in texts["base"] + texts["new"] for w in text.split()})
    words = {w: i + 2 for i, w in enumerate(learnt)}
    (HERE / "words.json").write_text(json.dumps(words))
    for name, lines in texts.items():
        np.savez(data / f"{name}.npz", x=[numbers(t, words) for t, _ in lines], y=[y for _, y in lines])
    names = list(WISHES)
    with (data / "live.jsonl").open("w") as file:
        for text, y in texts["live"]:
            file.write(json.dumps({"body": {"message": text}, "label": names[y]}) + "\n")
    job = parse({"data": "data/base.npz", "module": "net.py", "epochs": epochs, "rate": 3e-3}, "train.py")
    done = train(job, HERE, HERE / "first")
    for path in (HERE / "model.py", HERE / "words.json", HERE / "replies.json", HERE / "first" / done.model):
        shutil.copy(path, model)
    print(f"first model: {done.quality:.1%} of messages like those it learnt from")


if __name__ == "__main__":
    main()
