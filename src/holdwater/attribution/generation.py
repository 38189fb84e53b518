"""Find a generation of `mlx_lm` that is running: its prompt cache grows with each token, and its end is known."""

from holdwater.attribution.frames import local_items, running_frames

_FUNCTION = ("mlx_lm.generate", "generate_step")
_SO_FAR, _MOST = "n", "max_tokens"
"""Its variables: the tokens so far, and at most."""


def tokens_of_generation() -> tuple[int, int] | None:
    """The tokens so far, and at most, of the generation that is running.

    Returns:
        None if there is none, it has no end, or this version of `mlx_lm` has other variables.
    """
    for frame in running_frames():
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == _FUNCTION:
            found = dict(local_items(frame))
            so_far, most = found.get(_SO_FAR), found.get(_MOST)
            return (so_far, most) if type(so_far) is int and type(most) is int and so_far <= most else None
    return None
