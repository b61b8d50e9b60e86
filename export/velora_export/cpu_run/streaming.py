"""A clip as the runtime sees it: image by image through the towers, then the head."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from velora_export.cpu_run.clips import Flags
    from velora_export.cpu_run.sessions import Sessions

Images = dict[str, "NDArray[np.uint8]"]


def clip_runs(rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags) -> Iterator[tuple[str, Images]]:
    """Each tower's runs over a clip: the graph's name and its inputs, batch 1.

    Args:
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
    """
    has_rgb, has_event = flags["rgb_present"][0, 0] > 0, flags["event_present"][0, 0] > 0
    for j in range(len(rgb)):
        yield "rgb", {"image": rgb[j][None]}
        yield "event", {"image": event[j][None]}
        if j:
            images = {
                "rgb": rgb[j],
                "rgb_before": rgb[j - 1] if has_rgb else rgb[j],
                "event": event[j],
                "event_before": event[j - 1] if has_event else event[j],
            }
            yield "diff", {name: image[None] for name, image in images.items()}


def head_inputs(
    tokens: Mapping[str, Sequence[NDArray[np.float32]]], flags: Flags
) -> dict[str, NDArray[np.float32]]:
    """The head's inputs for a clip, its slots turned by two, as a ring's are.

    Args:
        tokens: of each tower's runs, float32[1, N, P], in their order.
        flags: as for `clip_runs`.
    """
    rings = {name: np.roll(np.concatenate(tokens[name]), 2, axis=0)[None] for name in MODALITIES}
    moved = (flags["rgb_present"] + flags["event_present"] > 0)[:, 1:].astype(np.float32)
    return {**rings, **flags, "diff_present": moved}


def stream_clip(
    sessions: Sessions, rgb: NDArray[np.uint8], event: NDArray[np.uint8], flags: Flags
) -> NDArray[np.float32]:
    """Logits [1, K] of one clip as the runtime gets them: image by image, slots turned, then the head.

    Args:
        sessions: of the graphs.
        rgb: uint8[T, H, W, 3].
        event: uint8[T, H, W, 3].
        flags: `rgb_present` and `event_present`, float32[1, T]: the same for all pairs of the clip.
    """
    tokens: dict[str, list[NDArray[np.float32]]] = defaultdict(list)
    for graph, inputs in clip_runs(rgb, event, flags):
        tokens[graph].append(sessions.run(graph, inputs))
    return sessions.run("head", head_inputs(tokens, flags))
