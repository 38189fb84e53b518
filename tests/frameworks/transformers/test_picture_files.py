"""Pictures as people have them: each is read in RGB, or the message says what is wrong with it."""

import gc
import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from holdwater.errors import DataError
from holdwater.frameworks.transformers.picture_files import MOST_PIXELS, Picture

WHERE = "example 3, picture 1 (cats/5.jpg)"
KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")


def noise(width: int = 23, height: int = 17) -> Image.Image:
    """A picture that no codec makes small."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """The bytes of its file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(source: Path | bytes) -> Picture:
    """A reference to it."""
    return Picture(source, WHERE)


def pixels(source: Path | bytes) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """What is decoded. Shape (height, width, 3)."""
    return np.asarray(picture(source).load())


def error_of(read: Callable[[Picture], Any], source: Path | bytes) -> str:
    """The message, if reading fails on purpose."""
    try:
        read(picture(source))
    except DataError as error:
        return str(error)
    return "none"


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_header(width: int, height: int) -> bytes:
    """A PNG file that says its size and has next to no pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


class TestWholePictures:
    """What is read, and as what."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_content_decides_and_not_the_suffix(self, tmp_path: Path, kind: str) -> None:
        """A picture of any kind may be named .jpg; the bytes alone are read the same."""
        path = tmp_path / "5.jpg"
        path.write_bytes(encoded(noise(), kind))

        image = picture(path).load()

        assert (type(image), image.mode, image.size, image.info) == (Image.Image, "RGB", (23, 17), {})
        assert picture(path).size() == (23, 17)
        assert np.array_equal(np.asarray(image), pixels(path.read_bytes()))
        assert picture(path).digest() == picture(path.read_bytes()).digest()

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_it_is_turned_as_it_is_shown(self, kind: str, orientation: int) -> None:
        """The size from the header is that of the turned picture."""
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(noise(), kind, exif=exif)
        with Image.open(io.BytesIO(data)) as image:
            shown = ImageOps.exif_transpose(image).convert("RGB")

        assert picture(data).size() == shown.size
        assert np.array_equal(pixels(data), np.asarray(shown))

    def test_exif_behind_the_pixels_of_a_png_counts(self) -> None:
        """And is found without decoding them."""
        exif = Image.Exif()
        exif[0x0112] = 6
        data = encoded(noise())
        end = data.index(b"IEND") - 4
        late = data[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[end:]

        assert picture(late).size() == (17, 23)
        assert np.array_equal(pixels(late), np.rot90(pixels(data), -1))

    def test_damaged_exif_turns_nothing(self) -> None:
        """Browsers show such a picture as it is stored."""
        data = encoded(noise(), "PNG", exif=b"Exif\0\0nothing of the kind")

        assert picture(data).size() == picture(data).load().size == (23, 17)

    def test_transparent_pixels_are_white(self) -> None:
        """By an alpha channel, of a palette, and by one colour that stands for nothing."""
        half = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
        half.putpixel((1, 0), (0, 0, 0, 0))
        grey = Image.new("LA", (2, 1), (80, 255))
        grey.putpixel((1, 0), (0, 0))
        key = Image.new("RGB", (2, 1), (9, 9, 9))
        key.putpixel((1, 0), (1, 2, 3))

        assert pixels(encoded(half))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
        assert pixels(encoded(half, "WEBP", lossless=True))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
        assert pixels(encoded(half.quantize(4)))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
        assert pixels(encoded(half, "GIF"))[0].tolist() == [[255, 0, 0], [255, 255, 255]]
        assert pixels(encoded(grey))[0].tolist() == [[80, 80, 80], [255, 255, 255]]
        assert pixels(encoded(key, transparency=(1, 2, 3)))[0].tolist() == [[9, 9, 9], [255, 255, 255]]

    @pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK"])
    def test_other_colours_are_converted(self, mode: str) -> None:
        """As Pillow converts them."""
        image = noise().convert(mode)

        assert np.array_equal(pixels(encoded(image, "TIFF")), np.asarray(image.convert("RGB")))

    @given(levels=st.lists(st.integers(0, 65535), min_size=1, max_size=20))
    @settings(max_examples=25, deadline=None)
    def test_sixteen_bits_are_scaled(self, levels: list[int]) -> None:
        """Rounded to the nearest level of 8 bits; Pillow's own conversion would clip them."""
        image = Image.fromarray(np.array([levels], np.uint16))
        want = [[round(level / 257)] * 3 for level in levels]

        for kind in ("PNG", "TIFF"):
            assert pixels(encoded(image, kind))[0].tolist() == want
        plain = f"P2 {len(levels)} 1 65535 {' '.join(map(str, levels))} ".encode()
        assert pixels(plain)[0].tolist() == want

    def test_white_of_sixteen_bits_may_be_zero(self) -> None:
        """Where the file says so."""
        image = Image.fromarray(np.array([[0, 65535]], np.uint16))

        assert pixels(encoded(image, "TIFF", tiffinfo={262: 0}))[0, :, 0].tolist() == [255, 0]

    def test_a_photo_with_a_preview_is_no_animation(self) -> None:
        """Phones write them."""
        data = encoded(noise(), "MPO", save_all=True, append_images=[noise(4, 4)])

        assert picture(data).size() == (23, 17)


class TestWhatIsWrong:
    """Each message names the picture."""

    @pytest.mark.parametrize("kind", KINDS)
    @given(share=st.floats(0, 1, exclude_max=True))
    @settings(max_examples=30, deadline=None)
    def test_a_picture_that_was_cut_is_never_learned(self, kind: str, share: float) -> None:
        """It is refused, unless all its pixels are there."""
        data = encoded(noise(), kind)

        error = error_of(Picture.load, data[: int(share * len(data))])

        assert error.startswith(WHERE) or np.array_equal(pixels(data[: int(share * len(data))]), pixels(data))

    @given(data=st.binary(max_size=200), kind=st.sampled_from(KINDS), at=st.integers(0, 400))
    @settings(max_examples=60, deadline=None)
    def test_nothing_else_is_raised(self, data: bytes, kind: str, at: int) -> None:
        """Whatever stands in a file."""
        whole = encoded(noise(), kind)
        for source in (data, whole[:at] + data + whole[at + len(data) :]):
            for read in (Picture.size, Picture.load):
                assert error_of(read, source).startswith((WHERE, "none"))

    @pytest.mark.parametrize(
        ("source", "words"),
        [
            (b"", "it is empty"),
            (b"<html>404</html>", "of another kind than JPEG, PNG"),
            (bytes(1000), "of another kind"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "of another kind"),
            (encoded(noise())[:400], "damaged or cut short .image file is truncated"),
            (png_header(30_000, 30_000), "it has more than 178,956,970 pixels; scale it down"),
            (encoded(Image.new("L", (201, 1))), "201 × 1 pixels: one side is more than 200 times"),
            (encoded(Image.new("F", (2, 2)), "TIFF"), "32 bits a pixel .mode F."),
            (encoded(Image.new("I", (2, 2)), "TIFF"), "32 bits a pixel .mode I."),
            (encoded(noise(), "GIF", save_all=True, append_images=[noise(9, 9)]), "several frames"),
            (encoded(noise(), "PNG", save_all=True, append_images=[Image.new("RGB", (23, 17))]), "several frames"),
            (encoded(noise(), "WEBP", save_all=True, append_images=[Image.new("RGB", (23, 17))]), "several frames"),
            (encoded(noise(), "TIFF", save_all=True, append_images=[noise(9, 9)]), "several pages"),
        ],
    )  # fmt: skip
    def test_what_is_wrong_is_said(self, source: bytes, words: str) -> None:
        """And no warning of Pillow comes with it."""
        with pytest.raises(DataError, match=words) as caught:
            picture(source).load()

        assert str(caught.value).startswith(f"{WHERE}: it ")

    def test_a_wrong_path_is_named(self, tmp_path: Path) -> None:
        """A missing file, a folder, one that cannot be opened for long, and no name of a file at all."""
        os.mkfifo(tmp_path / "pipe")

        for path in (tmp_path / "none.png", tmp_path, tmp_path / "pipe", tmp_path / "a\0b", Path("A" * 5000)):
            for read in (Picture.size, Picture.load, Picture.digest):
                with pytest.raises(DataError, match=r"example 3, picture 1 .cats/5.jpg.: "):
                    read(picture(path))

    @pytest.mark.parametrize(
        "wrong", [png_header(30_000, 30_000), b"no picture", encoded(Image.new("L", (201, 1)))]
    )
    def test_the_header_is_enough(self, wrong: bytes) -> None:
        """So a survey finds it."""
        with pytest.raises(DataError, match=WHERE[:9]):
            picture(wrong).size()

    def test_settings_of_others_stay(self) -> None:
        """A large picture gives no warning even where warnings are errors, and the user's own still come."""
        before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)

        assert MOST_PIXELS > 10_000 * 10_000 > (Image.MAX_IMAGE_PIXELS or 0)
        assert picture(png_header(10_000, 10_000)).size() == (10_000, 10_000)
        assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)
        with pytest.warns(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)


def test_files_are_closed(tmp_path: Path) -> None:
    """Whether the picture is whole or not; an open file would warn when it is collected."""
    path = tmp_path / "5.tiff"
    for data in (encoded(noise(), "TIFF"), encoded(noise(), "TIFF")[:900], b"nothing"):
        path.write_bytes(data)
        for read in (Picture.size, Picture.load, Picture.digest):
            with warnings.catch_warnings():
                warnings.simplefilter("error", ResourceWarning)
                error_of(read, path)
                gc.collect()

    assert str(path) not in [file.path for file in psutil.Process().open_files()]
