"""Pillow, asked for one format and with every reason told."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Final

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from pixsieve.image.libtiff import libtiff_errors_raised
from pixsieve.image.problem import bad_header

if TYPE_CHECKING:
    from pixsieve.image.header import ImageHeader

# Pillow logs flaws of files as errors, which Python prints where nobody has set up logging.
logging.getLogger("PIL").addHandler(logging.NullHandler())

_PLUGINS: Final[dict[str, type[ImageFile.ImageFile]]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}


def open_image(data: bytes | memoryview, kind: str) -> ImageFile.ImageFile:
    """Open with the one plugin for ``kind``; ``Image.open`` would hide the reason of a failure."""
    image = _PLUGINS[kind](io.BytesIO(data))
    # Pillow takes an orientation from XMP where EXIF has none; other loaders do not, nor does
    # probe().
    image.info.pop("xmp", None)
    image.info.pop("XML:com.adobe.xmp", None)
    return image


def load_image(image: ImageFile.ImageFile, header: ImageHeader) -> ImageFile.ImageFile:
    """Decode the first frame with Pillow, as it is stored (TIFF: turned upright already)."""
    with libtiff_errors_raised():
        image.load()
    expected = (header.width, header.height) if header.format == "tiff" else header.stored_size
    if image.size != expected:
        bad_header(f"the header says {expected} and the decoder {image.size}")
    return image
