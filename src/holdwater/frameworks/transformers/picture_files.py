"""Pictures of examples: where each one is, how large it is, and its pixels in RGB.

A picture is opened when it is asked for, and closed again; nothing that was decoded is kept. Its content decides
its kind, not the suffix of its name. What cannot be learned as it is raises DataError.
"""

import hashlib
import importlib
import io
import re
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from holdwater.errors import DataError
from holdwater.signal_errors import not_the_scripts

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Kinds of files that are decoded; none of them starts another program, as EPS does in Pillow."""
MOST_PIXELS = 178_956_970
"""Above these Pillow takes a picture for a decompression bomb."""
MOST_ASPECT = 200
"""Times that one side may be as long as the other; image processors refuse more."""
ORIENTATION = 0x0112
"""The tag of EXIF that says how a picture is turned for showing."""
TURNS = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE",
    6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90",
}  # fmt: skip
"""What is done to the pixels for each orientation; from 5 on, width and height are exchanged."""
BITS, PHOTOMETRIC = 258, 262
"""Tags of TIFF: bits of a channel, and whether 0 is white (0) or black."""
PILLOW_WARNINGS = ("ignore", None, Warning, re.compile(r"PIL\."), 0)
"""The warning filter, as `warnings.filters` holds it."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A reference to a picture."""

    source: Path | bytes = field(repr=False)
    """A file, or the bytes of an encoded picture."""
    where: str
    """For messages, such as "example 3, picture 1 (cats/5.jpg)"."""

    def size(self) -> tuple[int, int]:
        """Width and height as it is shown, from the header alone.

        Returns:
            In pixels, with the orientation of EXIF applied.

        Raises:
            DataError: It is missing, no picture, or of a kind that cannot be learned as it is.
        """
        with self._opened() as (image, orientation):
            width, height = image.size
            return (height, width) if orientation >= 5 else (width, height)

    def load(self) -> "Image":
        """Decode it.

        Returns:
            The pixels in RGB, with the orientation of EXIF applied; transparent ones over white.

        Raises:
            DataError: As for `size`, or its content is damaged.
        """
        with self._opened() as (image, orientation):
            image.load()
            pixels = rgb(image)
            if orientation in TURNS:
                turns = importlib.import_module("PIL.Image").Transpose
                pixels = pixels.transpose(turns[TURNS[orientation]])
            if pixels is image:  # the image of a file holds more than pixels; a copy would take as much again
                pixels = image._new(image.im)  # noqa: SLF001 - as each method of Pillow makes an image of pixels
        pixels.info.clear()
        return pixels

    def digest(self) -> str:
        """A hash of its encoded bytes.

        Returns:
            SHA-256, in hexadecimal digits.

        Raises:
            DataError: It cannot be read.
        """
        with self._file() as file:
            try:
                return hashlib.file_digest(file, "sha256").hexdigest()
            except not_the_scripts(OSError) as error:
                raise self._unreadable(error) from None

    @contextmanager
    def _opened(self) -> "Iterator[tuple[Image, int]]":
        """Open it and look at its header.

        Yields:
            The image, not decoded yet, and its orientation, 1 if it is shown as it is stored.

        Raises:
            DataError: Its header, or what is done to it meanwhile, shows that it cannot be learned.
            MemoryError: There is no memory for it.
        """
        pillow = _pillow(self.where)
        try:
            with self._file() as file, pillow.open(file, formats=_formats(pillow)) as image:
                self._check(image)
                yield image, _orientation(image, pillow)
        except (DataError, MemoryError):
            raise
        except not_the_scripts(pillow.DecompressionBombError):
            raise self._too_large() from None
        except not_the_scripts(pillow.UnidentifiedImageError):
            raise DataError(
                f"{self.where}: it is damaged, or of another kind than {', '.join(FORMATS)}; save it as PNG or "
                "JPEG, or leave the example out"
            ) from None
        except not_the_scripts(Exception) as error:  # each kind of damage has an exception of its own
            raise self._damaged(error) from None

    def _file(self) -> io.BufferedIOBase:
        """The encoded bytes, to be closed by the caller.

        Raises:
            DataError: There are none.
        """
        if isinstance(self.source, bytes):
            file: io.BufferedIOBase = io.BytesIO(self.source)
        else:
            try:
                if not self.source.is_file():
                    raise DataError(self._missing(self.source))
                file = self.source.open("rb")
            except not_the_scripts(OSError) as error:
                raise self._unreadable(error) from None
        if not file.read(1):
            file.close()
            raise DataError(f"{self.where}: it is empty (0 bytes); write it again, or leave the example out")
        file.seek(0)
        return file

    def _missing(self, path: Path) -> str:
        """What to say of a path at which no file is."""
        kind = "a folder or a device" if path.exists() else "not there"
        return (
            f"{self.where}: the file {path} is {kind}; write the path of a picture, absolute or relative to the "
            "folder of the data file"
        )

    def _unreadable(self, error: OSError) -> DataError:
        """The file exists, and the system does not give it."""
        return DataError(f"{self.where}: it cannot be read ({error.strerror}); check its path and permissions")

    def _damaged(self, error: Exception) -> DataError:
        """It is not whole, or the system fails to read it."""
        if isinstance(error, OSError) and error.errno:
            return self._unreadable(error)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        return DataError(
            f"{self.where}: it is damaged or cut short ({reason[:200]}); write it again, or leave the example out"
        )

    def _too_large(self) -> DataError:
        """It has so many pixels that it may be a decompression bomb."""
        return DataError(f"{self.where}: it has more than {MOST_PIXELS:,} pixels; scale it down")

    def _check(self, image: "Image") -> None:
        """Refuse what cannot be learned as it is, from the header alone.

        Raises:
            DataError: It is too large, too narrow, or animated.
        """
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise self._too_large()  # where Pillow's own limit was lifted
        if max(width, height) > MOST_ASPECT * min(width, height):
            raise DataError(
                f"{self.where}: it has {width:,} × {height:,} pixels: one side is more than {MOST_ASPECT} times "
                "the other; cut it into parts, or leave the example out"
            )
        if image.format != "MPO" and getattr(image, "is_animated", False):  # an MPO is a photo with its previews
            parts = "pages" if image.format == "TIFF" else "frames"
            raise DataError(
                f"{self.where}: it has several {parts}, and only the first would be learned; save those that "
                "count as pictures of their own"
            )
        if image.mode == "F" or (image.mode == "I" and image.format == "TIFF"):
            raise DataError(
                f"{self.where}: it has 32 bits a pixel (mode {image.mode}), and nothing says which is white; "
                "save it with 8 or 16 bits"
            )


def _pillow(where: str) -> Any:  # noqa: ANN401 - a module
    """Pillow's main module, whose warnings are not shown: what is wrong is raised.

    Raises:
        DataError: It is not installed.
    """
    try:
        pillow = importlib.import_module("PIL.Image")
    except ImportError:
        raise DataError(
            f"{where}: pictures need Pillow, which is not installed; write: pip install pillow"
        ) from None
    if (
        PILLOW_WARNINGS not in warnings.filters
    ):  # `catch_warnings` is not for threads, and pictures are read in some
        warnings.filterwarnings("ignore", module=r"PIL\.")
    return pillow


def _formats(pillow: Any) -> list[str]:  # noqa: ANN401 - a module
    """Those of the formats that this Pillow knows."""
    pillow.init()
    return [kind for kind in FORMATS if kind in pillow.OPEN]


def _orientation(image: "Image", pillow: Any) -> int:  # noqa: ANN401 - a module
    """How the image is to be turned, from the header; 1 where that is unknown or done by Pillow."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    try:
        if image.format == "PNG" and "exif" not in image.info and (late := _late_exif(image)):
            image.info["exif"] = late
        orientation = pillow.Image.getexif(image).get(ORIENTATION, 1)  # the method of PNG would decode the image
    except not_the_scripts(Exception):  # damaged EXIF: browsers show such a picture as it is stored
        return 1
    return orientation if orientation in TURNS else 1


def _late_exif(image: Any) -> bytes:  # noqa: ANN401 - an image of a file, with its file
    """The EXIF of a PNG that comes after the pixels; empty where there is none."""
    file, found = image.fp, b""
    at = file.tell()
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        length = int.from_bytes(head[:4], "big")
        if head[4:] == b"eXIf":
            found = file.read(length)
            break
        file.seek(length + 4, io.SEEK_CUR)
    file.seek(at)
    return bytes(found)


def rgb(image: "Image") -> "Image":
    """Convert a decoded picture to RGB.

    Args:
        image: Of any mode; transparent pixels become white, and 16 bits are scaled to 8.

    Returns:
        Itself where it is in RGB already.
    """
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        visible = image.convert("RGBA")
        white: Image = importlib.import_module("PIL.Image").new("RGB", image.size, "white")
        white.paste(visible, mask=visible)
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: "Image") -> "Image":
    """Grey of up to 16 bits in 8 bits, rounded."""
    tags = getattr(image, "tag_v2", {})
    most = (1 << int(tags.get(BITS, (16,))[0])) - 1
    levels = np.asarray(image).astype(np.uint32)
    if tags.get(PHOTOMETRIC) == 0:
        levels = most - levels
    if (transparent := image.info.get("transparency")) is not None:
        levels[levels == transparent] = most
    scaled = ((levels * 255 + most // 2) // most).astype(np.uint8)
    grey: Image = importlib.import_module("PIL.Image").fromarray(scaled)
    return grey
