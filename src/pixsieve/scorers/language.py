"""A guess at the language of a short text, by its script and its most frequent words."""

from __future__ import annotations

import re
from collections import Counter
from typing import Final

_SCRIPTS: Final = {
    name: re.compile(f"[{ranges}]")
    for name, ranges in {
        "latin": "A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff",
        "kana": "\u3041-\u30ff\uff66-\uff9d",
        "han": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
        "hangul": "\u1100-\u11ff\u3130-\u318f\uac00-\ud7af",
        "cyrillic": "\u0400-\u052f",
        "arabic": "\u0620-\u064a\u066e-\u06d3\u06fa-\u06ff",
        "devanagari": "\u0900-\u097f",
        "greek": "\u0370-\u03ff\u1f00-\u1fff",
        "hebrew": "\u05d0-\u05ea",
        "thai": "\u0e01-\u0e4e",
    }.items()
}
_ONE_LANGUAGE: Final = {
    "hangul": "ko", "devanagari": "hi", "greek": "el", "hebrew": "he", "thai": "th",
}  # fmt: skip
_UKRAINIAN = re.compile("[іїєґІЇЄҐ]")
_PERSIAN = re.compile("[پچژگیک]")

_FREQUENT: Final = {
    "en": "the of and a an in to is for with on at by from this that are it its his her their as "
    "was be or you your my our has have one two up out over into under near next while man woman",
    "de": "der die das und ein eine einer einem einen in mit von für auf im ist zu den dem des am "
    "bei aus nach vor zum zur sich auch wie oder nicht ich wir über unter beim als an um mann frau",
    "fr": "le la les de des du un une et en à au aux dans sur pour avec par est qui que ce cette "
    "son sa ses ou plus pas nous vous il elle sous entre chez d l homme femme",
    "es": "el la los las de del un una y en con por para que es al su sus se lo como más sobre "
    "entre desde este esta sin no muy o mi hombre mujer",
    "pt": "o a os as de do da dos das um uma e em no na nos nas com por para que é ao à seu sua "
    "se como mais sobre entre sem não ou meu minha homem mulher",
    "it": "il lo la i gli le di del della dei delle un uno una e in nel nella con per che è al "
    "alla sul sulla da dal dalla si come più non o tra su uomo donna",
    "nl": "de het een en van in op met voor is te aan bij door uit naar om dat die deze dit zijn "
    "als ook niet of over onder wij je ik man vrouw",
    "sv": "och i en ett på av med för till är som den det de att från vid om inte har sin sitt "
    "under över eller man kvinna mot",
    "pl": "i w na z do się nie że to jest o od za po dla jak przez przy oraz ze ten ta u lub pod "
    "nad są jego jej kobieta mężczyzna",
    "tr": "ve bir bu için ile de da ne çok en olarak olan gibi daha var mi mı üzerinde kadar sonra "  # noqa: RUF001
    "adam kadın",  # noqa: RUF001
    "id": "yang dan di ke dari untuk dengan ini itu pada adalah dalam tidak akan oleh atau saya "
    "seorang sebuah para juga pria wanita",
}  # fmt: skip


def _weights() -> dict[str, dict[str, float]]:
    """Return for each frequent word its languages, each with its share of the word."""
    languages: dict[str, list[str]] = {}
    for language, words in _FREQUENT.items():
        for word in words.split():
            languages.setdefault(word, []).append(language)
    return {word: dict.fromkeys(found, 1 / len(found)) for word, found in languages.items()}


_WEIGHTS: Final = _weights()
_WORD = re.compile(r"(?<!\w)[^\W\d_]+(?!\w)")


def guess(text: str) -> str | None:
    """Return the ISO 639-1 code of a text's likely language, or ``None`` where that is unsure.

    More than half of the letters must be of one script. Kana mean Japanese, other Chinese
    characters Chinese, and the scripts of Korean, Hindi, Greek, Hebrew and Thai these. Cyrillic
    is Russian, or Ukrainian if it has letters of its own; Arabic script is Arabic, or Persian
    likewise: other languages that share a script are taken for these. A Latin text is English,
    German, French, Spanish, Portuguese, Italian, Dutch, Swedish, Polish, Turkish or Indonesian by
    its frequent words: they must weigh at least one word that no other of these languages has, and
    half as much again as those of the next one.
    """
    letters = {name: len(script.findall(text)) for name, script in _SCRIPTS.items()}
    if letters["kana"]:
        letters["kana"] += letters.pop("han")
    script = max(letters, key=letters.__getitem__)
    if 2 * letters[script] <= sum(letters.values()):
        return None
    if script == "latin":
        return _by_words(text)
    if script == "cyrillic":
        return "uk" if _UKRAINIAN.search(text) else "ru"
    if script == "arabic":
        return "fa" if _PERSIAN.search(text) else "ar"
    return {"kana": "ja", "han": "zh", **_ONE_LANGUAGE}[script]


def _by_words(text: str) -> str | None:
    score: Counter[str] = Counter()
    for word in _WORD.findall(text.casefold()):
        score.update(_WEIGHTS.get(word, {}))
    best = score.most_common(2)
    if not best or best[0][1] < 1 or (len(best) > 1 and best[0][1] < 1.5 * best[1][1]):
        return None
    return best[0][0]
