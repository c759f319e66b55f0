"""The words of a complaint, in English and Chinese, as far as they tell what it is about. Pure.

English words lose their endings by a few rules (in the spirit of Porter, "An algorithm for suffix stripping", 1980, but
far fewer); Chinese, which has no blanks, is taken by characters and pairs of them.
"""

from __future__ import annotations

import re

MOST = 400  # words of one text
_ENGLISH = re.compile(r"[a-z][a-z']*")
_MARK = re.compile("<[a-z0-9_]+:[^>]*>")  # what was masked tells nothing
_CHINESE = re.compile("[\u4e00-\u9fff]+")
_WORDS = """
a about after again all also always am an and any are as at be because been but by can could did do does doing for
from get gets got had has have he her here him his how i if in into is it its just like me more most much my no not
now of on one only or other our out please really she should so some still such than that the their them then there
these they thing this those to too up us very was we were what when which while who why will with would you your every
since whole time day today yesterday
"""
_STOP = frozenset(_WORDS.split())
_STOP_CHINESE = frozenset("的了是我你他她它们在有和也都就不很这那一个吗呢吧啊把被给让为对与及或但而")


def words(text: str) -> frozenset[str]:
    """What the text is about; empty when that cannot be told."""
    low = _MARK.sub(" ", text.lower())
    found = [_stem(w.replace("'", "")) for w in _ENGLISH.findall(low) if w not in _STOP and len(w) > 1]
    for run in _CHINESE.findall(low):
        kept = "".join(c if c not in _STOP_CHINESE else " " for c in run)
        for part in kept.split():
            found += [*part, *(part[i : i + 2] for i in range(len(part) - 1))]
    return frozenset(found[:MOST])


def _stem(word: str) -> str:
    for ending in ("ing", "ied", "ies", "ed", "es", "ly", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word[: -len(ending)]
            break
    if len(word) > 3 and word[-1] == word[-2]:  # stopp(ed)
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word
