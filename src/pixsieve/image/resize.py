"""How large an image becomes, and its pixels at that size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

ResizeMode = Literal["no", "keep_ratio", "keep_ratio_largest", "center_crop", "border"]
Filter = Literal["area", "lanczos"]

FILTERS: Final[Mapping[str, Image.Resampling]] = {
    "area": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
"""What shrinks an image. Pillow's own ``BOX`` counts whole pixels, so at scales below 3 it is ten
times farther from an average over areas than Hamming's window, whose width follows the scale, is.
"""


class Layout(NamedTuple):
    """What becomes of an image's sides, in pixels.

    Attributes:
        scaled: width and height that the whole image is scaled to.
        size: width and height of the result: the middle of what is scaled where it is smaller, a
            border round it where it is larger.
    """

    scaled: tuple[int, int]
    size: tuple[int, int]


def layout(
    width: int, height: int, mode: ResizeMode, size: int, *, upscale: bool = False
) -> Layout | None:
    """Return how an upright image is resized, ``None`` if it stays as it is.

    The sides, and the place of crop and border, are those of img2dataset's modes of the same names.
    An image that would have to be enlarged stays as it is unless ``upscale``; one that needs no
    scaling is still cropped, or gets its border.

    Args:
        width: in pixels.
        height: in pixels.
        mode: ``"keep_ratio"`` makes the shorter side ``size``, ``"keep_ratio_largest"`` the longer
            one; ``"center_crop"`` makes the shorter side ``size`` and cuts the longer one to it;
            ``"border"`` makes the longer side ``size`` and fills up the shorter one; ``"no"``
            leaves all.
        size: in pixels.
        upscale: whether images may be enlarged.
    """
    if mode == "no":
        return None
    side = min(width, height) if mode in {"keep_ratio", "center_crop"} else max(width, height)
    if side < size and not upscale:
        return None
    scaled = (max(1, round(width * size / side)), max(1, round(height * size / side)))
    final = scaled if mode.startswith("keep") else (size, size)
    return None if (width, height) == scaled == final else Layout(scaled, final)


def reduction(width: int, height: int, scaled: tuple[int, int]) -> int:
    """Return by what an image's sides may be divided while it is decoded: 1, 2, 4 or 8.

    What is left has at least twice the pixels, per side, that the result will have, so that the
    filter still decides how it looks.
    """
    scale = min(width / scaled[0], height / scaled[1])
    return next((factor for factor in (8, 4, 2) if scale >= 2 * factor), 1)


def resize(
    image: Image.Image, width: float, height: float, to: Layout, shrink: Filter, border: str
) -> Image.Image:
    """Resize an image in one step; values are averaged as they are stored, gamma and all.

    Colour under transparent pixels does not count. What is enlarged is always done by Lanczos.

    Args:
        image: mode L, LA, RGB, RGBA or I;16; upright.
        width: of the image itself in the image's pixels: less than its width by a part of a pixel
            if it was reduced while it was decoded.
        height: likewise.
        to: the sides.
        shrink: the filter for what becomes smaller.
        border: ``#rrggbb``.
    """
    seen = (min(to.scaled[0], to.size[0]), min(to.scaled[1], to.size[1]))
    left, top = ((scaled - part) // 2 for scaled, part in zip(to.scaled, seen, strict=True))
    across, down = width / to.scaled[0], height / to.scaled[1]
    box = (left * across, top * down, (left + seen[0]) * across, (top + seen[1]) * down)
    box = (*box[:2], min(box[2], image.width), min(box[3], image.height))
    taken = FILTERS[shrink] if across >= 1 else Image.Resampling.LANCZOS
    if image.size != seen or box != (0, 0, *image.size):
        image = image.resize(seen, taken, box)
    if seen == to.size:
        return image
    canvas = Image.new(image.mode, to.size, _fill(image.mode, border))
    canvas.paste(image, ((to.size[0] - seen[0]) // 2, (to.size[1] - seen[1]) // 2))
    return canvas


def _fill(mode: str, colour: str) -> str | int:
    """Return a colour as a mode has it: in I;16, its luma times 257."""
    if mode != "I;16":
        return colour
    return Image.new("L", (1, 1), colour).tobytes()[0] * 257
