"""Captions to token ids, by the rules of the model's own folder.

The vocabulary and how words are split come from the folder's ``tokenizer.json``. What stands around
the text follows here: CLIP puts its start and end tokens around it, SigLIP its end token behind it
and fills up; a text that is too long is cut so that the end token stays.
"""

from __future__ import annotations

import html
import re
import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pixsieve.errors import MissingExtraError, UsageError

try:
    import tokenizers
except ImportError as error:  # pragma: no cover  # tested in an environment without it
    msg = "caption similarity needs tokenizers: pip install 'pixsieve[models]'"
    raise MissingExtraError(msg) from error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from pixsieve.models.architecture import Text
    from pixsieve.models.folder import ModelFolder

FILE: Final = "tokenizer.json"
SETTINGS: Final = "tokenizer_config.json"
_STEP: Final = 16
"""A CLIP text is filled up to a multiple of it: what follows the end token changes nothing."""
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """Turns captions into ids.

    Attributes:
        tokenizer: The folder's own.
        context: Most tokens of a text.
        start: Put before the text, if any.
        end: Put behind it.
        fill: Fills a text up to the context.
        fixed: Every text is filled up to the context; else to a multiple of 16.
        left: Texts are filled up in front.
        canonical: Lower case without punctuation, as SigLIP (the first) was trained.
        lower: Lower case, as SigLIP 2 was trained.
        entities: HTML entities are read, twice, as OpenCLIP's models were trained.
    """

    tokenizer: tokenizers.Tokenizer
    context: int
    start: int | None
    end: int
    fill: int
    fixed: bool
    left: bool
    canonical: bool
    lower: bool
    entities: bool

    def __call__(self, texts: Sequence[str]) -> list[NDArray[np.int64]]:
        """Return for each text its ids; no more than the context, the end token among them."""
        cleaned = [self._clean(text) for text in texts]
        found = []
        for encoding in self.tokenizer.encode_batch(cleaned, add_special_tokens=False):
            lead = [] if self.start is None else [self.start]
            ids = [*lead, *encoding.ids[: self.context - len(lead) - 1], self.end]
            length = (
                self.context if self.fixed else min(-(-len(ids) // _STEP) * _STEP, self.context)
            )
            fill = [self.fill] * (length - len(ids))
            found.append(np.array(fill + ids if self.left else ids + fill, np.int64))
        return found

    def _clean(self, text: str) -> str:
        if self.canonical:
            text = text.replace("\u2581", " ").lower().translate(_PUNCTUATION)
            return re.sub(r"\s+", " ", text).strip()
        if self.entities:
            text = html.unescape(html.unescape(text))
        return text.lower() if self.lower else text


def load(folder: ModelFolder, tower: Text) -> Tokenizer:
    """Return the tokenizer of a folder for its text tower.

    Raises:
        UsageError: if it is none, or does not fit the model.
    """
    path = folder.path / FILE
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        msg = f"{path} is no tokenizer: {error}; fetch it again"
        raise UsageError(msg) from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    vocabulary = tokenizer.get_vocab_size(with_added_tokens=True)
    if vocabulary > tower.vocabulary:
        msg = f"{path} has {vocabulary} tokens, the model {tower.vocabulary}: they do not fit"
        raise UsageError(msg)
    settings = folder.read_json(SETTINGS)
    sentencepiece = tokenizer.token_to_id("<bos>") is None  # SigLIP 2 has Gemma's vocabulary

    def special(name: str, usual: str) -> int:
        given = settings.get(name)
        given = given.get("content") if isinstance(given, dict) else given
        token = given if isinstance(given, str) else usual
        found = tokenizer.token_to_id(token)
        if found is None:
            msg = f"{path} has no token {token!r}, the {name} of the model"
            raise UsageError(msg)
        return int(found)

    if tower.causal:
        end = special("eos_token", "<|endoftext|>")
        return Tokenizer(
            tokenizer=tokenizer,
            context=tower.context,
            start=special("bos_token", "<|startoftext|>"),
            end=end,
            fill=end,
            fixed=False,
            left=False,
            canonical=False,
            lower=False,
            entities=folder.kind == "open_clip",
        )
    return Tokenizer(
        tokenizer=tokenizer,
        context=tower.context,
        start=special("bos_token", "<bos>") if settings.get("add_bos_token") is True else None,
        end=special("eos_token", "</s>" if sentencepiece else "<eos>"),
        fill=special("pad_token", "</s>" if sentencepiece else "<pad>"),
        fixed=True,
        left=settings.get("padding_side") == "left",
        canonical=sentencepiece,
        lower=not sentencepiece,
        entities=False,
    )
