"""From upright pixels of any size to what a model looks at: resize, crop, 8 bits.

The arithmetic is that of the reference implementations on Pillow images: the shorter side is
resized to ``size``, the longer to ``int(size * long / short)``, with antialiasing, rounded to 8
bits; then the centre is cut out. What follows (1/255, mean, standard deviation) is done by the
model's graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from pixsieve.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FULL: Final = 1 << 30
"""As ``needs.pixels``: every pixel there is."""
_LONG: Final = 8
"""From this ratio of the sides on only what the crop keeps is resized: 30000x2 would be huge."""

CLIP_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Final = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)

_INTERPOLATION: Final = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess:
    """What a model's processor does to an image.

    Attributes:
        resize: Shorter side in pixels, or (height, width) of the whole image, whatever its shape.
        crop: (height, width) cut out of the middle.
        resample: Pillow's number of the filter.
        mean: Per channel, of values from 0 to 1.
        std: Per channel.
        rounded: The crop's corner is rounded to even, as torchvision does, instead of down.
        exact: Follow the reference on every pixel. Otherwise an image more than four times too
            large is first averaged down, which is faster and differs by less than one grey level.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    resample: int = Image.Resampling.BICUBIC
    mean: tuple[float, ...] = CLIP_MEAN
    std: tuple[float, ...] = CLIP_STD
    rounded: bool = False
    exact: bool = False

    @property
    def pixels(self) -> int:
        """Shorter side that an image should be decoded to: twice the target, for a clean resize."""
        size = self.resize if isinstance(self.resize, int) else max(self.resize)
        return FULL if self.exact else 2 * size

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Return n images, (H, W, 3) of any size, as one array: (n, height, width, 3)."""
        batch = np.empty((len(images), *self.crop, 3), np.uint8)
        for row, image in zip(batch, images, strict=True):
            row[:] = self._one(image)
        return batch

    def _one(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        image = Image.fromarray(pixels)
        gap = None if self.exact else 2.0
        if not isinstance(self.resize, int):
            height, width = self.resize
            return np.asarray(image.resize((width, height), self.resample, reducing_gap=gap))
        short, long = sorted(image.size)
        size = (self.resize, int(self.resize * long / short))
        width, height = size if image.width <= image.height else size[::-1]
        top, left = (self._corner(height, self.crop[0]), self._corner(width, self.crop[1]))
        if long < _LONG * short:
            image = image.resize((width, height), self.resample, reducing_gap=gap)
            return np.asarray(image)[top : top + self.crop[0], left : left + self.crop[1]]
        across, down = image.width / width, image.height / height
        box = (
            left * across,
            top * down,
            min((left + self.crop[1]) * across, image.width),
            min((top + self.crop[0]) * down, image.height),
        )
        return np.asarray(image.resize(self.crop[::-1], self.resample, box, reducing_gap=gap))

    def _corner(self, side: int, crop: int) -> int:
        return round((side - crop) / 2) if self.rounded else (side - crop) // 2


def from_processor(config: Mapping[str, object], model_type: str, where: str) -> Preprocess:
    """Read the processor's settings of a Hugging Face folder; what it leaves out has defaults.

    Args:
        config: ``preprocessor_config.json``, or ``image_processor`` in ``processor_config.json``.
        model_type: ``clip``, ``siglip`` or ``dinov2``: whose defaults hold.
        where: The file, for messages.

    Raises:
        UsageError: for settings that are not followed here.
    """
    settings = _DEFAULTS.get(model_type, _DEFAULTS["clip"]) | {
        name: value for name, value in config.items() if value is not None
    }
    for name in ("do_resize", "do_rescale", "do_normalize"):
        if settings[name] is not True:
            msg = (
                f"{where}: {name} is {settings[name]}; only processors that do all three are known"
            )
            raise UsageError(msg)
    if not np.isclose(_number(settings["rescale_factor"], where), 1 / 255, rtol=1e-6):
        msg = f"{where}: rescale_factor is {settings['rescale_factor']}; expected 1/255"
        raise UsageError(msg)
    resize = _size(settings["size"], where, short=model_type != "siglip")
    crop = (
        _size(settings["crop_size"], where, short=False) if settings["do_center_crop"] else resize
    )
    crop = crop if isinstance(crop, tuple) else (crop, crop)
    _fits(resize, crop, where)
    return Preprocess(
        resize=resize,
        crop=crop,
        resample=int(_number(settings["resample"], where)),
        mean=_channels(settings["image_mean"], where),
        std=_channels(settings["image_std"], where),
    )


def from_open_clip(config: Mapping[str, object], size: int, where: str) -> Preprocess:
    """Read ``preprocess_cfg`` of an ``open_clip_config.json``.

    Raises:
        UsageError: for settings that are not followed here.
    """
    mode = config.get("resize_mode", "shortest")
    if mode not in {"shortest", "squash"}:
        msg = f"{where}: resize_mode is {mode!r}; expected 'shortest' or 'squash'"
        raise UsageError(msg)
    target = _size(config.get("size", size), where, short=False)
    crop = target if isinstance(target, tuple) else (target, target)
    if mode == "shortest" and crop[0] != crop[1]:
        msg = f"{where}: size is {crop}; expected a square where the shorter side is resized"
        raise UsageError(msg)
    return Preprocess(
        resize=crop if mode == "squash" else crop[0],
        crop=crop,
        resample=resampling(config.get("interpolation", "bicubic"), where),
        mean=_channels(config.get("mean", CLIP_MEAN), where),
        std=_channels(config.get("std", CLIP_STD), where),
        rounded=True,
    )


def resampling(name: object, where: str) -> int:
    """Return Pillow's number of a filter that is given by its name.

    Raises:
        UsageError: if there is no such filter.
    """
    if name not in _INTERPOLATION:
        msg = f"{where}: interpolation is {name!r}; expected one of {sorted(_INTERPOLATION)}"
        raise UsageError(msg)
    return _INTERPOLATION[str(name)]


_ALL: Final = {
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "rescale_factor": 1 / 255,
}
_DEFAULTS: Final[Mapping[str, dict[str, object]]] = {
    "clip": _ALL
    | {"size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": 224, "resample": 3}
    | {"image_mean": CLIP_MEAN, "image_std": CLIP_STD},
    "siglip": _ALL
    | {"size": {"height": 224, "width": 224}, "do_center_crop": False, "resample": 3}
    | {"image_mean": (0.5, 0.5, 0.5), "image_std": (0.5, 0.5, 0.5)},
    "dinov2": _ALL
    | {"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224, "resample": 3}
    | {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD},
}


def _size(value: object, where: str, *, short: bool) -> int | tuple[int, int]:
    """Return a size as the processors write it: a number, an edge, or height and width."""
    match value:
        case int():
            return value if short else (value, value)
        case [int(height), int(width)]:
            return (height, width)
        case {"shortest_edge": int(edge), **others} if not others:
            return edge
        case {"height": int(height), "width": int(width)}:
            return (height, width)
    msg = f"{where}: a size is {value!r}; expected shortest_edge, or height and width"
    raise UsageError(msg)


def _fits(resize: int | tuple[int, int], crop: tuple[int, int], where: str) -> None:
    if isinstance(resize, int) and max(crop) > resize:
        msg = f"{where}: the crop {crop} is larger than the image of shorter side {resize}"
        raise UsageError(msg)
    if isinstance(resize, tuple) and resize != crop:
        msg = f"{where}: a crop {crop} out of a squashed image {resize} is not known"
        raise UsageError(msg)


def _channels(value: object, where: str) -> tuple[float, ...]:
    match value:
        case [_, _, _]:
            return tuple(_number(each, where) for each in value)
    msg = f"{where}: mean or std is {value!r}; expected three numbers"
    raise UsageError(msg)


def _number(value: object, where: str) -> float:
    if isinstance(value, (int, float)):
        return float(value)
    msg = f"{where}: {value!r} should be a number"
    raise UsageError(msg)
