"""Where a run lies, and what `--resume` goes on with."""

from pathlib import Path

import pytest

from holdwater.errors import RunFolderError
from holdwater.store.lock import LOCK
from holdwater.train.run_folder import find_run_folder


def make_run(folder: Path) -> Path:
    """A folder that holds a run."""
    (folder / "checkpoints" / "step-00000001").mkdir(parents=True)
    (folder / "checkpoints" / "step-00000001" / "manifest.json").write_text("{}")
    return folder


class TestFindRunFolder:
    """Settles where a run lies."""

    def test_a_new_run_gets_a_folder_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """By date, in `runs`."""
        monkeypatch.chdir(tmp_path)

        folder = find_run_folder(None, None)

        assert folder.out.parent.name == "runs"
        assert folder.out.name.endswith("-train")
        assert not folder.resume

    @pytest.mark.parametrize("written", [True, False])
    def test_a_refused_run_leaves_no_folder_that_nobody_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: bool
    ) -> None:
        """Unless something has been written."""
        monkeypatch.chdir(tmp_path)
        chosen, named = find_run_folder(None, None), find_run_folder(tmp_path / "mine", None)
        for folder in (chosen, named):
            (folder.out / LOCK).touch()
            if written:
                (folder.out / "config.yaml").touch()
            folder.forget()

        assert chosen.out.exists() is written
        assert named.out.exists()

    def test_a_new_run_never_overwrites_an_old_one(self, tmp_path: Path) -> None:
        """The message says how to go on with it."""
        make_run(tmp_path / "run")

        with pytest.raises(RunFolderError, match="holds a run already; add --resume"):
            find_run_folder(tmp_path / "run", None)

    def test_resume_alone_takes_the_newest_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of those in `runs`."""
        import os

        monkeypatch.chdir(tmp_path)
        os.utime(make_run(tmp_path / "runs" / "old"), (1, 1))
        make_run(tmp_path / "runs" / "new")

        assert find_run_folder(None, "").out.name == "new"

    def test_resume_with_out_begins_there_if_there_is_nothing_yet(self, tmp_path: Path) -> None:
        """One command for the first start and for every restart."""
        folder = find_run_folder(tmp_path / "run", "")

        assert folder.resume
        assert folder.out.is_dir()

    def test_resume_takes_a_named_checkpoint(self, tmp_path: Path) -> None:
        """And goes on in the folder that it belongs to."""
        run = make_run(tmp_path / "run")

        folder = find_run_folder(None, str(run / "checkpoints" / "step-00000001"))

        assert (folder.out, folder.checkpoint) == (run, run / "checkpoints" / "step-00000001")

    def test_an_older_checkpoint_branches_off_into_another_folder(self, tmp_path: Path) -> None:
        """In the same folder the newer checkpoints would be mixed with those of the branch."""
        run = make_run(tmp_path / "run")
        (run / "checkpoints" / "step-00000009").mkdir()
        older = str(run / "checkpoints" / "step-00000001")

        with pytest.raises(RunFolderError, match=r"older than step-00000009 .* add --out FOLDER"):
            find_run_folder(None, older)
        assert find_run_folder(tmp_path / "branch", older).out == tmp_path / "branch"

    @pytest.mark.parametrize("resume", ["", "nowhere"])
    def test_resume_of_nothing_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str
    ) -> None:
        """The message says what to name."""
        monkeypatch.chdir(tmp_path)

        with pytest.raises(RunFolderError, match="name one"):
            find_run_folder(None, resume)

    def test_two_different_runs_are_refused(self, tmp_path: Path) -> None:
        """`--resume A --out B` would mix them."""
        make_run(tmp_path / "a")

        with pytest.raises(RunFolderError, match="different runs"):
            find_run_folder(tmp_path / "b", str(tmp_path / "a"))
