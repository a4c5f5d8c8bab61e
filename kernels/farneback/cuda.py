"""Farneback's flow, and the flow images made from it, by our CUDA kernels (farneback.cu, crop.cu).

All pairs of a batch share a few launches: 2 for each pyramid level and 2 for each iteration on it, which is 24 with the
published parameters, then 3 for the flow images. A frame's polynomial expansion is computed once and used for both of
its pairs. Frames, flow and silhouettes stay on the device. Only flow images of 64 x 64 leave it.

Shapes: N frames, P pairs, H x W pixels, C channels. Flow is (dx, dy) in pixels per frame.
"""

import functools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from attengait.errors import ParameterError, require
from attengait.kernels.farneback.taps import bilinear_taps, shrink_taps
from attengait.kernels.farneback.weights import Level, expansion_weights, pyramid, window_weights
from attengait.kernels.flow.backends import FarnebackParameters, Flow, FlowBackend, Gray
from attengait.kernels.pictures.colour import colour_wheel
from attengait.kernels.pictures.encode import ENCODINGS, STEPS_PER_PX, check_encoding
from attengait.kernels.runtime.launch import THREADS, Array, CudaDevice, Device, cuda_missing

TILE_W = 32
"""Columns of a block's tile in farneback.cu."""
EXPANSION_H = 8
"""Rows of a block's tile in the kernel `expand`."""
SHARED_BYTES = 48 << 10
"""Shared memory that a block may use without asking for more, on every GPU since 2012."""
MEMORY_BYTES = 2 << 30
"""Largest memory of a batch: enough pairs to keep a GPU busy, and a small part of its memory."""
BATCHES_BEGUN = 2
"""Batches that a call gives a device before it waits for the first."""
MAX_GRID_DEPTH = 65_535
"""Largest third dimension of a grid. It limits the pairs of a batch, and the frames of its pairs."""

Picture = NDArray[np.uint8]


def check_parameters(parameters: FarnebackParameters) -> None:
    """Raise ParameterError if the window or the neighbourhood is too large for the shared memory of a block."""
    fits = 3 * EXPANSION_H * (TILE_W + 2 * parameters.poly_n) * 4 <= SHARED_BYTES
    require(fits, "poly_n", parameters.poly_n, "at most 240 for flow cuda")
    _tile_height(parameters)


class DeviceFarneback:
    """Flow and pictures of batches that lie on one device."""

    def __init__(self, device: Device, parameters: FarnebackParameters) -> None:
        """Raises what `check_parameters` does."""
        check_parameters(parameters)
        self.device = device
        self._parameters = parameters
        self._window = window_weights(parameters)
        is_box = parameters.window == "box"
        # Sums of a box are winsize^2 averages, and the determinant has products of two of them.
        self._damping = np.float32(1e-3 * parameters.winsize**4 if is_box else 1e-3)
        self._constants: dict[bytes, Array] = {}
        self._defines = {
            "POLY_N": parameters.poly_n,
            "RADIUS": parameters.winsize // 2,
            "BOX": int(is_box),
            "TILE_H": _tile_height(parameters),
        }

    def flow(self, frames: Array, pairs: Array) -> tuple[Array, Array]:
        """Return the flow of each pair, float32 [P, H, W, 2], and its largest squared magnitude, float32 [P].

        `frames` are uint8 [N, H, W], `pairs` int32 [P, 2] (indices of frames), both on the device. Unknown flow (a
        component that is NaN or above 1e6) does not count for the largest magnitude. Returns before the GPU is done.
        """
        xp, p = self.device.xp, self._parameters
        num_frames, height, width = frames.shape
        num_pairs = len(pairs)
        weights = expansion_weights(p.poly_n, p.poly_sigma)
        taps = self._constant(weights.taps)
        squares = xp.zeros(num_pairs, xp.uint32)
        flows, flow_width, flow_height = xp.zeros((1, 1, 1, 2), xp.float32), 0, 0  # none yet
        columns: Array = np.uintp(0)
        rows: Array = np.uintp(0)
        levels = pyramid(width, height, p)
        for level in reversed(levels):
            w, h = np.int32(level.width), np.int32(level.height)
            num_pixels = level.width * level.height
            images = self._shrink(frames, level)
            expansions = xp.empty((num_frames, 5, level.height, level.width), xp.float32)
            self._launch(
                "expand",
                (_blocks(level.width, TILE_W), _blocks(level.height, EXPANSION_H), num_frames),
                (images, expansions, w, h, taps, weights.ig11, weights.ig03, weights.ig33, weights.ig55),
            )
            equations = xp.empty((num_pairs, 5, level.height, level.width), xp.float32)
            finer = xp.empty((num_pairs, level.height, level.width, 2), xp.float32)
            scale = np.float32(1 / p.pyr_scale)
            if flow_width:
                columns, rows = self._taps(level, flow_width, flow_height)
            for iteration in range(p.iterations):
                self._launch(
                    "set_up",
                    (_blocks(num_pixels, THREADS), 1, num_pairs),
                    (
                        *(expansions, pairs, flows, np.int32(flow_width), np.int32(flow_height)),
                        *(columns, rows, scale, equations, w, h),
                    ),
                )
                flows, flow_width, flow_height, scale = finer, level.width, level.height, np.float32(1)
                is_last = level is levels[0] and iteration == p.iterations - 1
                self.solve(equations, flows, squares if is_last else None)
        return flows, squares.view(xp.float32)

    def solve(self, equations: Array, flows: Array, squares: Array | None) -> None:
        """Average equations, float32 [P, 5, h, w], over the window and write the flow that solves them into `flows`.

        `flows` are float32 [P, h, w, 2]. `squares`, uint32 [P], all 0, receive the bits of the largest squared
        magnitudes, unless they are None.
        """
        num_pairs, _, height, width = equations.shape
        tiles = (_blocks(width, TILE_W), _blocks(height, self._defines["TILE_H"]), num_pairs)
        largest = np.uintp(0) if squares is None else squares
        window = self._constant(self._window)
        arguments = (equations, flows, np.int32(width), np.int32(height), window, self._damping, largest)
        self._launch("solve", tiles, arguments)

    def _shrink(self, frames: Array, level: Level) -> Array:
        """Frames blurred and resized to a level, float32 [N, h, w]."""
        num_frames, height, width = frames.shape
        is_resized = (level.width, level.height) != (width, height)
        num_taps = len(level.blur) + is_resized
        blur = tuple(level.blur.tolist())
        columns = self._constant(shrink_taps(level.width, width, blur, num_taps))
        rows = self._constant(shrink_taps(level.height, height, blur, num_taps))
        images = self.device.xp.empty((num_frames, level.height, level.width), self.device.xp.float32)
        sizes = (np.int32(width), np.int32(height), np.int32(level.width), np.int32(level.height))
        grid = (_blocks(level.width * level.height, THREADS), 1, num_frames)
        self._launch("shrink", grid, (frames, images, *sizes, columns, rows, np.int32(num_taps)))
        return images

    def pictures(self, flows: Array, squares: Array, silhouettes: Array, encoding: str, size: int) -> Array:
        """Return the stored pictures of some flows, uint8 [P, size, size, C], as `encode.encode` makes them.

        `flows` and `squares` are what `flow` returns. `silhouettes` are uint8 [P, H, W], and none may be empty. All are
        on the device. Returns before the GPU is done.
        """
        check_encoding(encoding)
        xp, launch = self.device.xp, self.device.launch
        num_pairs, height, width = silhouettes.shape
        band = crop_band(size)
        defines = {"SIZE": size, "BAND": band}
        w, h = np.int32(width), np.int32(height)
        crops = xp.empty((num_pairs, 4), xp.int32)
        for kernel in ("find_rows", "find_middles"):
            launch("pictures/crop.cu", kernel, (1, 1, num_pairs), (silhouettes, crops, w, h), defines)
        channels = ENCODINGS[encoding].channels
        pictures = xp.empty((num_pairs, size, size, channels), xp.uint8)
        grid = (_blocks(size, band), 1, num_pairs)
        if encoding != "colour":
            steps = np.float32(STEPS_PER_PX)
            launch(
                "pictures/crop.cu",
                "crop_motion",
                grid,
                (flows, crops, pictures, steps, np.int32(channels), w, h),
                defines,
            )
        else:
            arguments = (flows, squares, crops, self._constant(_wheel()), pictures, w, h)
            launch("pictures/crop.cu", "crop_colours", grid, arguments, defines)
        return pictures

    def _taps(self, level: Level, width: int, height: int) -> tuple[Array, Array]:
        """Where the columns and the rows of a level look in a picture of width x height."""
        return (
            self._constant(bilinear_taps(level.width, width)),
            self._constant(bilinear_taps(level.height, height)),
        )

    def _constant(self, values: NDArray[np.float32] | NDArray[np.int32]) -> Array:
        """Values on the device, uploaded once and whole for any stream: another one would not wait for the upload."""
        key = values.tobytes()
        if key not in self._constants:
            self._constants[key] = self.device.upload(values)
            self.device.wait()
        return self._constants[key]

    def _launch(self, kernel: str, grid: tuple[int, int, int], arguments: tuple[object, ...]) -> None:
        self.device.launch("farneback/farneback.cu", kernel, grid, arguments, self._defines)


class CudaFlow(FlowBackend):
    """The flow backend `cuda`: any number of frames and pairs, in batches that fit the memory."""

    def __init__(
        self,
        parameters: FarnebackParameters,
        *,
        device: Device | None = None,
        memory_bytes: int | None = None,
    ) -> None:
        """Use the given device (by default the first GPU) and at most `memory_bytes` of it.

        The default is 2 GiB, or half of the free memory if that is less. Raises AttenGaitError if there is no GPU,
        ParameterError for parameters that the kernels do not support.
        """
        self.device = device if device is not None else CudaDevice()
        self.farneback = DeviceFarneback(self.device, parameters)
        self._memory_bytes = memory_bytes

    @functools.cached_property
    def memory_bytes(self) -> int:
        """Memory of the device for one batch. Asking takes memory there, so it is asked at the first use."""
        if self._memory_bytes is not None:
            return self._memory_bytes
        return min(MEMORY_BYTES, self.device.free_memory_bytes() // 2)

    def flows(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Flow]:
        """Yield one flow, float32 [H, W, 2] in pixels per frame, for each pair of indices into `grays`."""
        for batch in self._batches(grays, pairs):
            frames, indices = self._upload(grays, batch)
            flows, _ = self.farneback.flow(frames, indices)
            yield from self.device.download(flows)

    def pictures(
        self,
        grays: Sequence[Gray],
        pairs: Sequence[tuple[int, int]],
        silhouettes: Sequence[Picture],
        encoding: str,
        size: int,
    ) -> Picture:
        """Return the flow images of some pairs, uint8 [P, size, size, C]; flow does not leave the device.

        `grays` and `silhouettes` (one for each pair, not empty) are uint8 [H, W], all of one size. The `grays` may lie
        on the host or on the device.
        """
        return self.begin(grays, pairs, silhouettes, encoding, size)()

    def begin(
        self,
        grays: Sequence[Gray],
        pairs: Sequence[tuple[int, int]],
        silhouettes: Sequence[Picture],
        encoding: str,
        size: int,
    ) -> Callable[[], Picture]:
        """See FlowBackend. While the device computes one batch, the next one goes up; with a third, the first is
        waited for."""
        check_encoding(encoding)
        made = [np.empty((0, size, size, ENCODINGS[encoding].channels), np.uint8)]
        begun: deque[Callable[[], Picture]] = deque()
        start = 0
        for batch in self._batches(grays, pairs):
            if len(begun) == BATCHES_BEGUN:
                made.append(begun.popleft()())
            begun.append(self._begin(grays, batch, silhouettes[start : start + len(batch)], encoding, size))
            start += len(batch)

        def finish() -> Picture:
            made.extend(wait() for wait in begun)
            return np.concatenate(made)

        return finish

    def _begin(
        self,
        grays: Sequence[Gray],
        pairs: Sequence[tuple[int, int]],
        silhouettes: Sequence[Picture],
        encoding: str,
        size: int,
    ) -> Callable[[], Picture]:
        outlines = self.device.start_upload(runs(silhouettes))
        frames, indices = self._upload(grays, pairs)
        flows, squares = self.farneback.flow(frames, indices)
        wait = self.device.start_download(self.farneback.pictures(flows, squares, outlines, encoding, size))
        uploaded = [outlines, frames]

        def finish() -> Picture:
            pictures: Picture = wait()
            uploaded.clear()  # not before: see Device.start_upload
            return pictures

        return finish

    def _upload(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> tuple[Array, Array]:
        """The frames that some pairs need, and the pairs as indices into them, on the device."""
        used = sorted({frame for pair in pairs for frame in pair})
        position = {frame: i for i, frame in enumerate(used)}
        indices = np.array([(position[first], position[second]) for first, second in pairs], np.int32)
        return self._stack([grays[frame] for frame in used]), self.device.upload(indices)

    def _stack(self, grays: Sequence[Gray]) -> Array:
        if all(isinstance(gray, np.ndarray) for gray in grays):
            return self.device.start_upload(runs(grays))
        return self.device.xp.stack([self.device.xp.asarray(gray) for gray in grays])

    def _batches(self, grays: Sequence[Gray], pairs: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
        if not pairs:
            return
        # A pair of neighbours adds at most one frame to a batch. Another pair adds up to two.
        pairs_in_memory = max(1, self.memory_bytes // (pair_bytes(*grays[0].shape) * 2))
        size = min(pairs_in_memory, MAX_GRID_DEPTH // 2)
        for start in range(0, len(pairs), size):
            yield pairs[start : start + size]


def runs(pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures [H, W] of one size as few arrays [n, H, W], in order.

    Those that lie side by side in one array, as the readers' do, are not copied. Where none do, all are copied into
    one.
    """
    starts = [i for i in range(len(pictures)) if i == 0 or not _follows(pictures[i - 1], pictures[i])]
    if len(starts) == len(pictures):
        return [np.stack(pictures)]
    lengths = np.diff([*starts, len(pictures)]).tolist()
    return [
        np.lib.stride_tricks.as_strided(
            pictures[start], (length, *pictures[start].shape), (pictures[start].nbytes, *pictures[start].strides)
        )
        for start, length in zip(starts, lengths, strict=True)
    ]


def _follows(first: Picture, second: Picture) -> bool:
    """Whether a picture begins where another one ends, in the same array."""
    return (
        first.base is not None
        and first.base is second.base
        and first.flags.c_contiguous
        and second.flags.c_contiguous
        and first.ctypes.data + first.nbytes == second.ctypes.data
    )


def crop_band(size: int) -> int:
    """Rows of a picture that a block of crop.cu makes: as many as shared memory holds of their colours, up to 4."""
    return 4 if size <= 128 else 1


def pair_bytes(height: int, width: int) -> int:
    """Device memory for one pair of neighbours, with the one frame that it adds."""
    image, expansion, equations = 4, 5 * 4, 5 * 4
    flows = 2 * 8  # of this level and of the coarser one
    gray, silhouette = 1, 1
    return height * width * (gray + silhouette + image + expansion + equations + flows)


def missing() -> str | None:
    """Return None if the backend `cuda` can be used, else one sentence that says why not."""
    return cuda_missing()


@functools.cache
def _wheel() -> NDArray[np.float32]:
    """The colour wheel, float32 [56, 3], with the first colour once more at its end."""
    wheel = colour_wheel()
    return np.concatenate([wheel, wheel[:1]])


def _tile_height(parameters: FarnebackParameters) -> int:
    """Rows of a tile in the kernel `solve`: 24, or fewer for wide windows.

    More would read less beyond the tile, but many GPUs would then hold one or two blocks at a time."""
    for height in (24, 16, 8):
        if _solve_bytes(height, parameters.winsize) <= SHARED_BYTES:
            return height
    largest = next(size for size in range(parameters.winsize, 0, -1) if _solve_bytes(8, size) <= SHARED_BYTES)
    raise ParameterError(f"winsize is {parameters.winsize}, but must be at most {largest} for flow cuda")


def _solve_bytes(tile_height: int, winsize: int) -> int:
    """Shared memory of a block of `solve`."""
    span = TILE_W + 2 * (winsize // 2)
    return tile_height * (5 * (span + (4 - span) % 8) * 4 + (TILE_W + 1) * 8) + 4


def _blocks(count: int, size: int) -> int:
    return math.ceil(count / size)
