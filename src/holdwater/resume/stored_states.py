"""Write the registered states and the random states to a checkpoint, and restore them."""

import os
from collections.abc import Mapping
from typing import Any

from safetensors.torch import load_file, save_file

from holdwater.deferred_signals import DeferredSignals
from holdwater.errors import ConfigError
from holdwater.random_states import random_states, restore_random_states
from holdwater.resume.beside_states import beside_states, restore_beside_states
from holdwater.resume.exactness import exactness, restore_exactness
from holdwater.resume.state_codec import decode, encode, set_state, state_of
from holdwater.store.checkpoints import Checkpoint, CheckpointFolder


def save(
    things: Mapping[str, Any], folder: CheckpointFolder, step: int, *, inputs: Mapping[str, int], seed: int
) -> None:
    """Write a checkpoint.

    Args:
        things: The registered objects, by name.
        folder: Of the checkpoints.
        step: Steps done.
        inputs: Tensors and arrays that the script makes before its loop, as checksums.
        seed: Of the random states that the script does not seed.

    Raises:
        CheckpointError: It cannot be written.
        ConfigError: A state cannot be kept exactly.
    """
    tensors: dict[str, Any] = {}
    states = {name: encode(state_of(thing, name), name, tensors) for name, thing in sorted(things.items())}
    beside = encode(beside_states(things), "beside", tensors)
    random = random_states()
    files = {"random.safetensors": lambda path: save_file(random, path)}
    if tensors:
        files["state.safetensors"] = lambda path: save_file(tensors, path)
    state = {"states": states, "beside": beside, "inputs": dict(inputs), "seed": seed, "exactness": exactness()}
    folder.write(step, files, state, best=False)


def restore(things: Mapping[str, Any], checkpoint: Checkpoint) -> list[str]:
    """Restore all states; return messages on what could not be restored.

    Args:
        things: The registered objects, by name.
        checkpoint: Of an earlier process.

    Raises:
        ConfigError: What was stored does not fit what is registered.
    """
    states = checkpoint.state["states"]
    if states.keys() != things.keys():
        raise ConfigError(
            f"{checkpoint.folder} holds the states of {', '.join(states) or 'nothing'}, but this script "
            f"registers {', '.join(things) or 'nothing'}; register the same objects under the same names"
        )
    remarks = restore_exactness(checkpoint.state["exactness"])
    file = checkpoint.folder / "state.safetensors"
    tensors = load_file(file) if os.access(file, os.F_OK) else {}
    decoded = {name: decode(states[name], tensors) for name in things}
    with DeferredSignals():  # torch takes what is raised in `load_state_dict` for an error of the state
        for name, thing in things.items():
            set_state(thing, name, decoded[name])
    if "beside" in checkpoint.state:
        restore_beside_states(things, decode(checkpoint.state["beside"], tensors))
    restore_random_states(load_file(checkpoint.folder / "random.safetensors"))
    return remarks
