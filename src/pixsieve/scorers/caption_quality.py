"""Plain measures of a caption: how long it is, in what language, and whether it says anything.

They are what text baselines of image-text datasets filter by, without any model: DataComp's
``basic`` filter (Gadre et al. 2023) keeps English captions of more than 2 words and more than 5
characters, LAION-400M (Schuhmann et al. 2021) those of at least 5 characters, and Conceptual
Captions (Sharma et al. 2018) drops boilerplate and repetition.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from pixsieve.scorers.language import guess
from pixsieve.stage import ScoreStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pixsieve.stage import ImageBatch

LOOKED_AT: Final = 10_000
"""Characters of a caption that are looked at; longer ones are counted in full."""
REPEATED_LENGTH: Final = 5

_TYPES: Final = {
    "caption_chars": pa.int32(),
    "caption_words": pa.int32(),
    "caption_language": pa.string(),
    "caption_alnum": pa.float32(),
    "caption_repeated": pa.float32(),
    "caption_url": pa.float32(),
    "caption_boilerplate": pa.bool_(),
}
_METADATA: Final = {
    "caption_chars": ("0 and up", "characters", "neither", "length without white space around"),
    "caption_words": ("0 and up", "words", "neither", "parts between white space, as DataComp's"),
    "caption_language": ("ISO 639-1", "", "neither", "guess by script and frequent words"),
    "caption_alnum": ("0 to 1", "share of characters", "higher", "letters, marks and digits"),
    "caption_repeated": (
        "0 to 1",
        f"share of runs of {REPEATED_LENGTH} characters",
        "lower",
        "runs that stand further ahead, too",
    ),
    "caption_url": ("0 to 1", "share of characters", "lower", "URLs and host names"),
    "caption_boilerplate": ("false or true", "", "lower", "file names and phrases of web pages"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionQualityStage(ScoreStage):
    """Adds measures of the caption; looks at no image. All are null where there is no caption.

    caption_chars: Unicode code points, without white space around.
    caption_words: parts between white space. A sentence in Chinese, Japanese or Thai is one.
    caption_language: ISO 639-1 code, a guess by script and frequent words; null where unsure, as it
        is for many captions of a few words. See :func:`pixsieve.scorers.language.guess`.
    caption_alnum: share of letters (with their marks) and digits among what is not white space.
    caption_repeated: share of runs of 5 characters that stand further ahead in the caption, too,
        whatever their case. It finds repeated letters, words and phrases alike; ordinary captions
        have less than 0.1, texts of a thousand characters about 0.2.
    caption_url: share of characters in URLs and host names.
    caption_boilerplate: whether the caption is a file name, a number, a word such as "image", or
        has a phrase that speaks of a web page instead of a picture, such as "click to enlarge".

    Of very long captions, the first 10,000 characters are looked at, except for the lengths.
    DataComp's filter is ``FilterStage("caption_language = 'en' and caption_words > 2 and
    caption_chars > 5")``, but for its language model.
    """

    def reads(self) -> tuple[str, ...]:
        return ("caption",)

    def adds(self) -> pa.Schema:
        fields = []
        for name, (scale, unit, better, source) in _METADATA.items():
            metadata = {"scale": scale, "unit": unit, "better": better, "source": source}
            fields.append(pa.field(name, _TYPES[name], metadata=metadata))
        return pa.schema(fields)

    def load(self) -> Callable[[ImageBatch], pa.RecordBatch]:
        schema = self.adds()

        def score(batch: ImageBatch) -> pa.RecordBatch:
            captions = batch.rows["caption"].to_pylist()
            rows = [{} if caption is None else measure(caption) for caption in captions]
            return pa.RecordBatch.from_pylist(rows, schema=schema)

        return score


def measure(caption: str) -> dict[str, int | float | str | bool | None]:
    """Return all measures of one caption."""
    caption = caption.strip()
    text = caption[:LOOKED_AT]
    size = max(1, len(text))
    return {
        "caption_chars": len(caption),
        "caption_words": len(caption.split()),
        "caption_language": guess(_URL.sub(" ", text)),
        "caption_alnum": _alnum(text),
        "caption_repeated": _repeated(text),
        "caption_url": sum(len(found) for found in _URL.findall(text)) / size,
        "caption_boilerplate": _is_boilerplate(text),
    }


def _alnum(text: str) -> float:
    shown = "".join(text.split())
    # Marks, such as most vowels of Hindi and Thai, are part of their letter.
    return len(_ALNUM.findall(shown)) / max(1, len(shown))


def _repeated(text: str) -> float:
    text = " ".join(text.casefold().split())
    count = len(text) - REPEATED_LENGTH + 1
    if count < 1:
        return 0.0
    return 1 - len({text[at : at + REPEATED_LENGTH] for at in range(count)}) / count


_ALNUM = re.compile(r"[^\W_]|[\u0300-\u036f\u0591-\u05c7\u064b-\u065f\u0900-\u0dff\u0e31-\u0e4e]")

# Without endings that are words (it, in, at), as a full stop is often set without a space. The
# lengths are those of DNS: no text, however odd, can make the search slow.
_URL = re.compile(
    r"""(?xi)
    (?: https?:// | ftp:// | www\. ) \S+
    | (?<! [\w@.-] ) (?: [a-z0-9-]{1,63} \. ){1,8}
      (?: com | org | net | info | biz | io | co | edu | gov | tv | eu | uk | de | fr | nl | pl | pt
        | br | ru | jp | cn | au | ca | ch )
      (?! [\w-] | \.\w ) (?: [/?\#] \S* )?
    """
)

_FILE_NAME = re.compile(
    r"""(?xi)
    .* [\w)] \. (?: jpe?g | png | gif | webp | bmp | tiff? | avif | heic | svg | psd | cr2 | nef )
    | (?: img | dsc[fn]? | dcim | cimg | dji | gopr | p (?= \d{7} ) | pict? | hpim | imag | image
        | photo | picture | scan | screen[ ]?shot | snapshot | whatsapp[ ]image | fb[ ]img )
      [ _(-]* \d [\d _().:-]* (?: at [ ] [\d.:]+ )?
    | (?= [a-f-]* \d ) [0-9a-f]{8} [0-9a-f-]{8,}
    | [\d\s_().,:/\#-]{5,}
    """
)
_WORDS = """
image images img photo photos picture pic untitled thumbnail thumb logo icon banner avatar
placeholder default blank spacer pixel null none n/a na nan undefined unknown test alt caption
description title slideshow gallery cover header background
alt_text image_description photo_gallery no_caption no_description no_title no_image no_photo
profile_picture profile_photo cover_photo featured_image product_image main_image stock_photo
foto bild imagen imagem immagine afbeelding zdjęcie kein_bild sin_título sans_titre
"""
_ALONE = frozenset(_WORDS.split())
"""Captions of a word or two that say nothing; a space is written as ``_``."""
_PHRASES = re.compile(
    "|".join(
        re.escape(phrase.casefold())
        for phrase in (
            "click to enlarge", "click to view", "click for larger", "click for full",
            "click for more", "click here", "click image", "click on image", "click the image",
            "enlarge image", "view larger", "view full size", "view fullsize", "tap to zoom",
            "image not available", "image not found", "image unavailable", "image coming soon",
            "no image available", "no photo available", "photo not available", "photo coming soon",
            "image may contain", "image for article", "empty alt attribute", "file name is",
            "add to cart", "add to wishlist", "read more", "learn more about", "opens in a new",
            "skip to content", "share on facebook", "share on twitter", "pin it on pinterest",
            "all rights reserved", "zum vergrößern", "bild vergrößern", "cliquez pour agrandir",
            "agrandir l'image", "clic para ampliar", "ampliar imagen", "clique para ampliar",
            "clicca per ingrandire", "klik om te vergroten", "нажмите, чтобы увеличить",
            "点击查看", "クリックで拡大",
        )
    )
)  # fmt: skip


def _is_boilerplate(text: str) -> bool:
    plain = " ".join(text.casefold().split())
    if not plain:
        return False
    alone = plain.strip(" .,:;!?\"'()[]<>-_#*")
    return (
        alone.replace(" ", "_") in _ALONE
        or _FILE_NAME.fullmatch(plain.replace("_", " ")) is not None
        or _PHRASES.search(plain) is not None
    )
