"""How many pixels a picture file claims to have, from its header: a small file can ask a decoder for gigabytes."""

import struct

MAX_PIXELS = 1 << 26
"""Of a picture or a frame of a video: 8,192 x 8,192. An 8K camera has half as many."""

_PNG, _JPEG, _BMP = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"BM"
_JPEG_SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frames, which hold the size. The three others are tables."""
_JPEG_WITHOUT_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))


def too_large(data: bytes) -> str | None:
    """What is said of a PNG, JPEG or BMP file that has more pixels than MAX_PIXELS; None of any other.

    Of files without a readable size, and of other kinds, the decoder must say what they are.
    """
    size = picture_size(data)
    return None if size is None else too_many_pixels(*size)


def too_many_pixels(width: int, height: int) -> str | None:
    """What is said of a size beyond MAX_PIXELS; None of any other."""
    if width * height <= MAX_PIXELS:
        return None
    return f"it claims {width:,} x {height:,} pixels, more than the {MAX_PIXELS:,} that are read"


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels as the header of a PNG, JPEG or BMP file has them; None where there is none."""
    try:
        if data.startswith(_PNG):
            width, height = struct.unpack_from(">II", data, 16)
        elif data.startswith(_JPEG):
            return _jpeg_size(data)
        elif data.startswith(_BMP):
            # The oldest headers have 12 bytes, with 16 bits for each length; a negative height means from the top.
            is_old = struct.unpack_from("<I", data, 14)[0] == 12
            width, height = struct.unpack_from("<HH" if is_old else "<ii", data, 18)
        else:
            return None
    except struct.error:
        return None
    return abs(width), abs(height)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """The largest size of any frame that comes before the end of the segments."""
    sizes = []
    place = 2
    while place + 4 <= len(data):
        if data[place] != 0xFF:
            # Data of a scan, or damage: the decoder, too, goes on with the next marker.
            place = data.find(b"\xff", place)
            if place < 0:
                break
            continue
        marker = data[place + 1]
        if marker in _JPEG_SIZES and place + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, place + 5)
            sizes.append((width, height))
        if marker == 0xFF:
            place += 1
        elif marker == 0 or marker in _JPEG_WITHOUT_LENGTH:
            place += 2
        elif marker == 0xDA:
            break
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return max(sizes, key=lambda size: size[0] * size[1], default=None)
