"""The dataset card: what Hugging Face's ``load_dataset`` goes by, compared with the tars.

Only the front matter is looked at: which tars are of which split, how many samples a split has, and
which columns are declared. Source: the metadata of dataset cards as ``datasets`` 5 reads it.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Any

import yaml

from pixsieve.image import FORMATS
from pixsieve.verify.described import inside, items, parts_of, plain_yaml, shown_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pixsieve.verify.described import Described

CARD = "README.md"
_RULE = "index-card"
_MATTER = re.compile(rb"\A---\r?\n(.*?)\r?\n---(\r?\n|\Z)", re.DOTALL)
_GIVEN = frozenset({"__key__", "__url__"})


def check_card(known: Described) -> None:
    """Check the front matter of ``README.md``, if there is one."""
    path = known.folder / CARD
    if not path.is_file():
        return
    matter = _MATTER.match(path.read_bytes())
    if matter is None:
        if CARD in known.listed:
            known.complain(_RULE, CARD, "has no front matter, without which the rows are loaded")
        return
    try:
        found = plain_yaml(matter[1])
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        known.complain(_RULE, CARD, f"the front matter is no YAML: {error}")
        return
    if not isinstance(found, dict):
        return
    told = found.get("dataset_info")
    infos = [told] if isinstance(told, dict) else items(told)
    for config in items(found.get("configs")):
        splits = _splits(known, config)
        if splits is None:
            continue
        name = config.get("config_name", "default")
        for info in infos:
            if info.get("config_name", "default") == name:
                _check_info(known, info, splits)


def _splits(known: Described, config: Mapping[str, Any]) -> dict[str, set[str]] | None:
    """Return the tars of each split; None if the config is not about tars of this folder."""
    splits: dict[str, set[str]] = {}
    about_tars = False
    for split, pattern in _patterns(config.get("data_files")):
        if not pattern.endswith(".tar") or not inside(pattern):
            continue
        about_tars = True
        matched = {tar for tar in known.by_tar if fnmatch.fnmatchcase(tar, pattern)}
        if not matched:
            known.complain(_RULE, CARD, f"no tar matches {pattern} of the split {split}")
        splits.setdefault(split, set()).update(matched)
    if not about_tars:
        return None
    seen: dict[str, str] = {}
    for split, tars in splits.items():
        for tar in sorted(tars):
            if tar in seen:
                text = f"{tar} is in the splits {seen[tar]} and {split}"
                known.complain(_RULE, CARD, text)
            seen.setdefault(tar, split)
        ours = {known.by_tar[tar].task.split or "train" for tar in tars}  # that is for none
        if known.own and len(ours) > 1:
            text = f"the split {split} has tars of {sorted(ours)}"
            known.complain(_RULE, CARD, text)
    if left := known.by_tar.keys() - seen.keys():
        text = f"{len(left):,} tars are in no split: {shown_names(left)}"
        known.complain(_RULE, CARD, text)
    return splits


def _patterns(data_files: object) -> Iterator[tuple[str, str]]:
    """Yield (split, pattern) of all the ways in which data files can be named."""
    if isinstance(data_files, dict):
        given = list(data_files.items())
    elif isinstance(data_files, list) and any(isinstance(each, dict) for each in data_files):
        given = [(each.get("split", "train"), each.get("path")) for each in items(data_files)]
    else:
        given = [("train", data_files)]
    for split, paths in given:
        for path in paths if isinstance(paths, list) else [paths]:
            if isinstance(path, str):
                yield str(split), path


def _check_info(known: Described, info: Mapping[str, Any], splits: Mapping[str, set[str]]) -> None:
    stated = {str(each.get("name")): each for each in items(info.get("splits"))}
    if stated and stated.keys() != splits.keys():
        text = f"dataset_info has the splits {sorted(stated)}, configs {sorted(splits)}"
        known.complain(_RULE, CARD, text)
    for split in stated.keys() & splits.keys():
        counts = [known.samples(tar) for tar in splits[split]]
        sizes = [known.size(tar) for tar in splits[split]]
        facts = [("num_examples", counts), *([("num_bytes", sizes)] if known.own else [])]
        for key, numbers in facts:
            if key not in stated[split] or any(number is None for number in numbers):
                continue
            total = sum(number or 0 for number in numbers)
            if stated[split][key] != total:
                text = f"{key} of {split} is {stated[split][key]!r}, found {total:,}"
                known.complain(_RULE, CARD, text)
    declared = {str(each.get("name")) for each in items(info.get("features"))}
    if not declared or not known.whole:
        return
    parts = parts_of(known.results)
    images = {part for part in parts if part.lower() in {*FORMATS.values(), "jpeg", "tiff"}}
    if undeclared := images - declared:
        text = f"the features lack {shown_names(undeclared)}: such images are not loaded"
        known.complain(_RULE, CARD, text)
    if known.own and (strange := declared - _GIVEN - parts.keys()):
        text = f"the features have {shown_names(strange)}, which no sample has"
        known.complain(_RULE, CARD, text)
