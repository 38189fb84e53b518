"""Rows from tar files, and pictures in rows of Parquet files and saved datasets."""

import gzip
import io
import json
import tarfile
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdwater.errors import DataError
from holdwater.train.finetune.data.held_out import fingerprint
from holdwater.train.finetune.data.rows import open_rows
from holdwater.train.finetune.data.shards import TarShards, _groups, _Member


def write(path: Path, members: dict[str, Any], **options: Any) -> Path:
    """A tar file of these members; what is not bytes becomes JSON, or text where it is a string."""
    with tarfile.open(path, "w", **options) as tar:
        for name, value in members.items():
            content = (
                value
                if isinstance(value, bytes)
                else (value if isinstance(value, str) else json.dumps(value)).encode()
            )
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def row_of(tmp_path: Path, members: dict[str, Any]) -> dict[str, Any]:
    """The only example of a tar file."""
    rows = open_rows(write(tmp_path / "a.tar", members))
    assert len(rows) == 1
    return rows[0]


class TestTarShards:
    """Members with the same name before the first dot are one example."""

    def test_examples_by_number_through_all_files(self, tmp_path: Path) -> None:
        """In the order of the files' names; the same name in two files means two examples."""
        write(tmp_path / "b.tar", {"0.txt": "two", "x/0.txt": "three"})
        write(tmp_path / "a.tar", {"./0.txt": "zero", "1.txt": "one"})
        (tmp_path / "._a.tar").write_bytes(b"of a Mac")

        rows = open_rows(tmp_path)

        assert [rows[number]["text"] for number in (3, 0, 2, 1)] == ["three", "zero", "two", "one"]
        assert len(rows) == 4

    @pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_and_names_of_any_script(self, tmp_path: Path, format: int) -> None:  # noqa: A002 - tarfile's
        """An example begins where the header with its long name does."""
        folder = "/".join(["f" * 60] * (2 if format == tarfile.USTAR_FORMAT else 9))
        names = [f"{folder}/{number}-é" for number in range(3)]
        members: dict[str, Any] = {}
        for name in names:
            members |= {f"{name}.json": {"prompt": name}, f"{name}.txt": "yes"}

        rows = open_rows(write(tmp_path / "a.tar", members, format=format))

        assert [rows[number]["prompt"] for number in range(3)] == names

    def test_pictures_come_in_the_order_of_their_names(self, tmp_path: Path) -> None:
        """However they lie in the file; 10 comes after 9, and other members are left out."""
        pictures = {
            f"7.{number}.{kind}": bytes([number]) for number, kind in ((10, "JPG"), (9, "png"), (1, "webp"))
        }

        row = row_of(tmp_path, pictures | {"7.json": {"messages": ["m"]}, "7.cls": "3"})

        assert row == {
            "messages": ["m"],
            "images": [{"bytes": bytes([number]), "path": name} for name, number in (
                ("7.1.webp", 1), ("7.9.png", 9), ("7.10.JPG", 10))],
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("members", "row"),
        [
            ({"0.txt": "cat\n"}, {"text": "cat"}),
            ({"0.txt": "cat", "0.json": {"prompt": "what?"}}, {"prompt": "what?", "completion": "cat"}),
            ({"0.json": {"prompt": "a", "completion": "b"}, "0.txt": "c"}, {"prompt": "a", "completion": "b"}),
            ({"0.txt": "c", "0.json": {"messages": ["m"]}}, {"messages": ["m"]}),
            ({"0.json": {"key": "1", "caption": "c"}, "0.txt": "c"}, {"key": "1", "caption": "c", "text": "c"}),
            ({"._0.txt": "of a Mac", "README": "of a person", "0.txt": "cat"}, {"text": "cat"}),
        ],
    )
    def test_a_text_completes_what_the_json_says(
        self, tmp_path: Path, members: dict[str, Any], row: dict[str, Any]
    ) -> None:
        """It is the completion of a prompt, or the text."""
        assert row_of(tmp_path, members) == row

    @given(
        st.lists(
            st.tuples(st.text("ab/", min_size=1, max_size=3), st.sampled_from(["txt", "0.jpg", "1.jpg"])),
            max_size=12,
        )
    )
    def test_groups_hold_each_member_once(self, members: list[tuple[str, str]]) -> None:
        """In their order; neighbours with another name are in another group."""
        names = [f"x{name}.{kind}" for name, kind in members]
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name in names:
                tar.addfile(tarfile.TarInfo(name))
        file.seek(0)

        with tarfile.open(fileobj=file, tarinfo=_Member) as tar:
            groups = [[member.name for member in group] for group in _groups(tar, Path("a.tar"), read=True)]

        keys = [
            {(PurePosixPath(name).parent, name.rpartition("/")[2].partition(".")[0]) for name in group}
            for group in groups
        ]
        assert all(len(key) == 1 for key in keys)
        assert all(one != other for one, other in pairwise(keys))
        assert sum(map(len, groups)) == len([
            name for name in names if not name.rpartition("/")[2].startswith(".")
        ])

    def test_nothing_is_held_but_offsets(self, tmp_path: Path) -> None:
        """And no file stays open."""
        path = write(tmp_path / "a.tar", {f"{number}.txt": "cat" for number in range(50)})

        rows = TarShards(path)

        assert rows[49] == {"text": "cat"}
        assert (len(rows._begins), rows._begins.itemsize) == (50, 8)
        assert str(path) not in [file.path for file in psutil.Process().open_files()]


class TestWhatIsWrong:
    """The file and the member are named."""

    @pytest.mark.parametrize(
        ("members", "words"),
        [
            ({"0.jpg": b"", "1.jpg": b"", "0.txt": "", "1.txt": ""}, "beside 0.jpg is no .json and no .txt; .*--sort=name"),
            ({}, "holds no example"),
            ({"0.json": "{"}, "example 1 .0.json.: 0.json is no JSON"),
            ({"0.json": [1]}, "0.json holds a list; write an object"),
            ({"0.txt": b"\xff"}, "0.txt is not UTF-8"),
            ({"0.json": {}, "0.meta.json": {}}, "it has 0.json and 0.meta.json; keep one"),
            ({"0.json": {"images": ["a"]}, "0.jpg": b""}, "names images, and 0.jpg lies beside it"),
            ({"0.txt": "cat", "0.heic": b""}, "no picture, but 0.heic, of a kind that is not read"),
        ],
    )  # fmt: skip
    def test_members_that_are_no_examples(self, tmp_path: Path, members: dict[str, Any], words: str) -> None:
        """Whether that shows at once, or when the example is read."""
        with pytest.raises(DataError, match=words) as caught:
            row_of(tmp_path, members)

        assert str(caught.value).startswith(f"--data {tmp_path / 'a.tar'}")

    def test_links_are_no_content(self, tmp_path: Path) -> None:
        """The picture would be missing without a word."""
        link = tarfile.TarInfo("0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere.jpg"
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.addfile(link)

        with pytest.raises(DataError, match=r"0.jpg is a link"):
            open_rows(tmp_path / "a.tar")

    @pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar.zst", "a.tar"])
    def test_compressed_files_have_no_random_access(self, tmp_path: Path, name: str) -> None:
        """Whether the name says so or not; also where they lie in a folder."""
        path = write(tmp_path / "plain", {"0.txt": "cat"})
        (tmp_path / "x").mkdir()
        write(tmp_path / "x" / "0.tar", {"0.txt": "cat"})
        (tmp_path / "x" / name).write_bytes(gzip.compress(path.read_bytes()))

        for data in (tmp_path / "x" / name, tmp_path / "x"):
            with pytest.raises(DataError, match=f"{name} is compressed, .*gunzip"):
                open_rows(data)

    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.8])
    def test_a_file_that_was_cut_is_found_at_once(self, tmp_path: Path, kept: float) -> None:
        """Before anything is learned."""
        path = write(tmp_path / "a.tar", {f"{number}.txt": "cat" * 5000 for number in range(9)})
        data = path.read_bytes()
        path.write_bytes(data[: int(kept * len(data))])

        with pytest.raises(DataError, match="is damaged or no tar file"):
            open_rows(path)


class TestFingerprint:
    """What identifies examples."""

    def test_covers_every_tar_file(self, tmp_path: Path) -> None:
        """A change in any of them is another fingerprint."""
        for name in ("a.tar", "b.tar"):
            write(tmp_path / name, {"0.txt": "cat"})
        before = fingerprint(tmp_path)

        write(tmp_path / "b.tar", {"0.txt": "dog"})

        assert fingerprint(tmp_path) != before


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["rows.parquet", "folder"])
def test_pictures_of_saved_rows_stay_encoded(tmp_path: Path, kind: str) -> None:
    """In a column, in a list, and in the content of messages."""
    import datasets
    from PIL import Image

    image = Image.new("RGB", (5, 4), "red")
    file = io.BytesIO()
    image.save(file, "PNG")
    part = {"type": datasets.Value("string"), "image": datasets.Image()}
    message = {"role": datasets.Value("string"), "content": [part]}
    features = datasets.Features({
        "image": datasets.Image(),
        "images": datasets.List(datasets.Image()),
        "messages": [message],
    })
    row = {
        "image": image,
        "images": [image, image],
        "messages": [{"role": "user", "content": [{"type": "image", "image": image}]}],
    }
    dataset = datasets.Dataset.from_list([row], features=features)
    path = tmp_path / kind
    dataset.save_to_disk(str(path)) if kind == "folder" else dataset.to_parquet(str(path))
    encoded = {"bytes": file.getvalue(), "path": None}

    assert open_rows(path)[0] == {
        "image": encoded,
        "images": [encoded, encoded],
        "messages": [{"role": "user", "content": [{"type": "image", "image": encoded}]}],
    }
