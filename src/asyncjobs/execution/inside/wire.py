"""The frames of the control channel between an engine and a job's process.

    header length, 4 bytes big-endian | payload length, 4 bytes | header | payload

The header is JSON, ASCII only; this file does not look into it. The payload is the text of the
params or of the result, and nobody between the store and the job's function looks into that.

Both sides use this file, the child by path: standard library only, and as little of it as can be.
"""

from __future__ import annotations

import posix

LARGEST_HEADER = 1024 * 1024
CHUNK = 64 * 1024
Frame = tuple[bytes, bytes]
"""A header and a payload."""

_LENGTHS = 8


class FrameError(Exception):
    """Bytes that are no frame, or one above its limits; the channel can't be read any further."""


def pack(header: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame.

    Raises:
        FrameError: the header is longer than `LARGEST_HEADER`, or the payload than 4 GiB.
    """
    if len(header) > LARGEST_HEADER:
        raise FrameError(f"a header of {len(header)} bytes (the limit is {LARGEST_HEADER})")
    if len(payload) >= 1 << 32:
        raise FrameError(f"a payload of {len(payload)} bytes")
    return len(header).to_bytes(4, "big") + len(payload).to_bytes(4, "big") + header + payload


def read_frame(descriptor: int) -> Frame | None:
    """Wait for one frame, or for the other side's end: then None, in the middle of a frame too."""
    lengths = _read(descriptor, _LENGTHS)
    if lengths is None:
        return None
    header_length = int.from_bytes(lengths[:4], "big")
    content = _read(descriptor, header_length + int.from_bytes(lengths[4:], "big"))
    return None if content is None else (content[:header_length], content[header_length:])


def write_all(descriptor: int, data: bytes) -> None:
    """Write `data` to the last byte, waiting as long as the other side needs.

    Raises:
        OSError: the other side is gone.
    """
    view = memoryview(data)
    while view:
        view = view[posix.write(descriptor, view) :]


class Decoder:
    """Turns the bytes of a channel, in whatever pieces they come, into frames."""

    __slots__ = ("_buffer", "_payload_limit")

    def __init__(self, payload_limit: int) -> None:
        self._buffer = bytearray()
        self._payload_limit = payload_limit

    @property
    def partial(self) -> bool:
        """Whether a frame has begun that is not whole yet."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame]:
        """Add what was read, and return the frames that are whole now.

        Raises:
            FrameError: a length is above its limit; nothing more can be read from this channel.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        while len(buffer) >= _LENGTHS:
            header_end = _LENGTHS + self._header_length()
            end = header_end + self._payload_length()
            if len(buffer) < end:
                break
            frames.append((bytes(buffer[_LENGTHS:header_end]), bytes(buffer[header_end:end])))
            del buffer[:end]
        return frames

    def _header_length(self) -> int:
        length = int.from_bytes(self._buffer[:4], "big")
        if length > LARGEST_HEADER:
            raise FrameError(f"a header of {length} bytes (the limit is {LARGEST_HEADER})")
        return length

    def _payload_length(self) -> int:
        length = int.from_bytes(self._buffer[4:_LENGTHS], "big")
        if length > self._payload_limit:
            raise FrameError(f"a payload of {length} bytes (the limit is {self._payload_limit})")
        return length


def _read(descriptor: int, count: int) -> bytes | None:
    data = posix.read(descriptor, min(count, 16 * CHUNK)) if count else b""
    if len(data) == count:
        return data
    pieces = [data]
    while data and (count := count - len(data)):
        data = posix.read(descriptor, min(count, 16 * CHUNK))
        pieces.append(data)
    return b"".join(pieces) if data else None
