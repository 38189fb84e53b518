"""Write a model with its adapters added to its weights, by `mlx_lm`."""

import logging
import shutil
import tempfile
from pathlib import Path

from mlx.utils import tree_unflatten
from mlx_lm.utils import load_adapters, load_tokenizer, save

from holdwater.errors import RunFolderError
from holdwater.store.checkpoints import CheckpointFolder
from holdwater.train.finetune.mlx.loading import load_mlx

log = logging.getLogger("holdwater")


def merge_newest(name: str, checkpoints: CheckpointFolder, folder: Path) -> None:
    """Write the model with the adapters of the newest checkpoint, if there is one.

    Args:
        name: Of the model: a folder, or a name on the hub.
        checkpoints: Of the run.
        folder: Is made.

    Raises:
        RunFolderError: The folder is there already, or cannot be written.
        ModelError: The model cannot be loaded.
    """
    newest = checkpoints.newest(log.warning)
    if newest is not None:
        write_merged(name, newest.folder, folder)


def write_merged(name: str, adapters: Path, folder: Path) -> None:
    """Load a model as it is stored, add adapters to its weights, and write it whole, or not at all.

    Weights that are stored in few bits are rounded to these again, as `mlx_lm` does it.

    Args:
        name: Of the model: a folder, or a name on the hub.
        adapters: A checkpoint, or adapters that `mlx_lm` has written.
        folder: Is made.

    Raises:
        RunFolderError: The folder is there already, or cannot be written.
        ModelError: The model cannot be loaded.
    """
    if folder.exists():
        raise RunFolderError(f"--merged {folder} is there already; name another folder")
    loaded = load_mlx(name)
    model = load_adapters(loaded.model, str(adapters))
    merged = [(layer, module.fuse()) for layer, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(merged))
    tokenizer = load_tokenizer(loaded.folder)  # type: ignore[no-untyped-call]
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        save(aside, loaded.folder, model, tokenizer, loaded.config, donate_model=False)
        aside.rename(folder)
    except OSError as error:
        raise RunFolderError(f"--merged {folder} cannot be written: {error.strerror}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    log.info("%s is the model with its adapters, merged by mlx_lm", folder)
