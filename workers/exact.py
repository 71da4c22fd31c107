"""A decoded frame to pixels, exactly as the reference has them: uint8 RGB, upright, scaled and cropped.

The arithmetic is the reference's (3D-ResNets-PyTorch on PIL images); what it did before that, extracting the frames
with ffmpeg, is done here by an exact conversion to RGB.
"""

from __future__ import annotations

import av
import av.filter
import numpy as np
import numpy.typing as npt
from av.video.plane import VideoPlane
from PIL import Image

from clipmux.engine.errors import VideoError

from .decode import Frame
from .taps import crop_offset

MATRICES = {3: 2, 10: 9}
"""Colour matrices (AVColorSpace) that libswscale refuses, and what stands in for them: for the reserved number, an
untagged picture's; for BT.2020 with constant luminance, a tag that is rarely meant, BT.2020's."""

LONGEST = 1000
"""How many times as long as wide a picture may be. One of 1 × 65,535 would be scaled to gigabytes."""

_BILINEAR = Image.Resampling.BILINEAR
_FLIP_X = Image.Transpose.FLIP_LEFT_RIGHT
_FLIP_Y = Image.Transpose.FLIP_TOP_BOTTOM
_SWAP_XY = Image.Transpose.TRANSPOSE


class Exact:
    """Frames to uint8 ``[height, width, 3]``, RGB, C-contiguous; the same object serves any number of videos.

    The picture is scaled to cover ``height`` × ``width`` with its proportions kept (bilinear, antialiased; the other
    side is rounded down), then its centre is cut out. Where both are 112, a picture of 340 × 256 becomes 148 × 112
    and loses 18 columns on either side. Pixels count as square, as in the reference.
    """

    def __init__(self, height: int, width: int) -> None:
        self.chosen = "exact"
        self._height = height
        self._width = width
        self._to_rgb = _ToRgb()

    def __call__(self, frame: Frame) -> npt.NDArray[np.uint8]:
        """Pixels of one frame.

        Raises:
            VideoError: the frame's pixel format cannot be converted, or its shape is absurd.
        """
        picture = frame.picture
        check_shape(picture.width, picture.height)
        image = picture.convert("RGB") if isinstance(picture, Image.Image) else self._to_rgb(picture, frame.display)
        size = covering(image.width, image.height, self._width, self._height)
        if image.size != size:
            image = image.resize(size, _BILINEAR)
        left = crop_offset(image.width, self._width)
        top = crop_offset(image.height, self._height)
        return np.array(image.crop((left, top, left + self._width, top + self._height)), np.uint8)


def check_shape(width: int, height: int) -> None:
    """Refuse pictures of absurd proportions.

    Raises:
        VideoError: the picture is.
    """
    if max(width, height) > LONGEST * min(width, height):
        raise VideoError(
            "decode",
            "PictureShape",
            f"a picture of {width} × {height} is more than {LONGEST:,} times as long as wide: check the video",
        )


def covering(width: int, height: int, wanted_width: int, wanted_height: int) -> tuple[int, int]:
    """Columns and rows of a picture scaled to cover what is wanted: one of them is as wanted, the other at least."""
    if width * wanted_height <= height * wanted_width:
        return wanted_width, int(wanted_width * height / width)
    return int(wanted_height * width / height), wanted_height


def with_known_matrix(picture: av.VideoFrame) -> av.VideoFrame:
    """The same picture, tagged with a colour matrix that libswscale knows."""
    if (matrix := int(picture.colorspace)) in MATRICES:
        picture.colorspace = MATRICES[matrix]
    return picture


class _ToRgb:
    """Decoded frames to upright RGB images of the same size.

    libswscale rounds right only when asked to: its default is 0.8 to 1.6 of 255 darker in each channel. It is asked
    for planar RGB (gbrp), which is bit for bit the same as rgb24 and twice as fast.
    """

    def __init__(self) -> None:
        self._kind: tuple[object, ...] | None = None
        self._graph: av.filter.Graph | None = None

    def __call__(self, picture: av.VideoFrame, display: tuple[int, ...] | None) -> Image.Image:
        # Matrix and range come from the frame's tags. Untagged YUV counts as BT.601, limited range, as in ffmpeg.
        matrix = int(with_known_matrix(picture).colorspace)
        kind = (picture.format.name, picture.width, picture.height, matrix, int(picture.color_range))
        try:
            if self._graph is None or kind != self._kind:
                self._graph, self._kind = _graph(*kind), kind
            self._graph.vpush(picture)
            planar = self._graph.vpull()
        except av.FFmpegError as error:
            self._graph = None
            raise VideoError(
                "decode",
                "PixelFormat",
                f"a picture of {picture.width} × {picture.height} in the format '{picture.format.name}' with colour "
                f"matrix {matrix} cannot be converted to RGB ({error.strerror}): convert the video to H.264",
            ) from None
        green, blue, red = (_grey(plane, planar.width, planar.height) for plane in planar.planes)
        return _upright(Image.merge("RGB", (red, green, blue)), display)


def _graph(pixel_format: str, width: int, height: int, colorspace: int, color_range: int) -> av.filter.Graph:
    """buffer → scale → gbrp, for frames of one kind."""
    graph = av.filter.Graph()
    source = graph.add(
        "buffer",
        video_size=f"{width}x{height}",
        pix_fmt=pixel_format,
        time_base="1/1",
        pixel_aspect="1/1",
        colorspace=str(colorspace),
        range=str(color_range),
    )
    # interl=-1: in interlaced frames the chroma of a line is that of its own field.
    scale = graph.add("scale", flags="bilinear+accurate_rnd+full_chroma_int", interl="-1", threads="1")
    planar = graph.add("format", pix_fmts="gbrp")
    graph.link_nodes(source, scale, planar, graph.add("buffersink"))
    graph.configure()
    return graph


def _grey(plane: VideoPlane, width: int, height: int) -> Image.Image:
    """A plane as an image, not copied; its lines may be padded."""
    values: npt.NDArray[np.uint8] = np.frombuffer(plane, np.uint8)  # type: ignore[call-overload]  # it is a buffer
    return Image.frombuffer("L", (width, height), values, "raw", "L", plane.line_size, 1)


def _upright(image: Image.Image, display: tuple[int, ...] | None) -> Image.Image:
    """Apply the display matrix that phones write."""
    swap, flip_x, flip_y = turns(display)
    if swap:
        image = image.transpose(_SWAP_XY)
    if flip_x:
        image = image.transpose(_FLIP_X)
    if flip_y:
        image = image.transpose(_FLIP_Y)
    return image


def turns(display: tuple[int, ...] | None) -> tuple[bool, bool, bool]:
    """What makes a picture upright: to swap rows and columns, then to mirror each row, then each column.

    A display matrix is one of eight ways to turn and mirror. It is [a b u, c d v, x y w] in 16.16 fixed point, and
    shows column p and row q (downwards) at column a·p + c·q and row b·p + d·q (ISO/IEC 14496-12, 6.2.2). A quarter turn
    clockwise has b = 1 and c = -1.
    """
    if display is None:
        return False, False, False
    a, b, _, c, d, *_ = display
    swap = abs(a) + abs(d) < abs(b) + abs(c)
    if swap:
        a, d = c, b
    return swap, a < 0, d < 0
