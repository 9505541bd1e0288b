"""The engine's end of a control channel, and what a process prints; both read by the loop itself.

Transports and their protocols would do the same at three times the price, and close a turn of the
loop later; here, what is closed is closed.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import socket
from collections.abc import Callable

from asyncjobs.execution.wire import CHUNK, Decoder, Frame, FrameError

LONGEST_TAIL = 4096
_LAST_READS = 32  # of a pipe, once its process is over: a stranger that still writes is not waited for


class Channel:
    """One request out, one reply in.

    `reply` is the whole frame once it is there, `problem` says what came instead of one. `unread`
    turns true when the other side ended without having read all that was sent to it.
    """

    def __init__(self, end: socket.socket, *, payload_limit: int, on_news: Callable[[], None]) -> None:
        self.reply: Frame | None = None
        self.problem: str | None = None
        self.unread = False
        self.ended = False
        self._loop = asyncio.get_running_loop()
        self._socket = end
        self._decoder = Decoder(payload_limit)
        self._on_news = on_news
        self._unsent = memoryview(b"")
        self._open = True
        end.setblocking(False)
        self._loop.add_reader(end.fileno(), self._readable)

    @property
    def partial(self) -> bool:
        """Whether the other side has begun a reply that is not whole."""
        return self.reply is None and self._decoder.partial

    def send(self, data: bytes) -> None:
        """Send a frame, as fast as the other side takes it; what it never takes shows in `unread`."""
        self._unsent = memoryview(data)
        self._writable()
        if self._unsent:
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def drain(self) -> None:
        """Read what is there."""
        while self._open and not self.ended and self._read():
            pass

    def close(self) -> None:
        """Close this end, and tell the other side even if a forked copy of this process keeps it open."""
        if not self._open:
            return
        self._open = False
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._unsent = memoryview(b"")
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the other side was faster
        self._socket.close()

    def _readable(self) -> None:
        self._read()
        if self.ended or self.problem:
            self._loop.remove_reader(self._socket.fileno())

    def _read(self) -> bool:
        """Read one piece; return whether there may be another."""
        try:
            data = self._socket.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # ECONNRESET: it ended with something of ours unread (`man 7 unix`)
            self.unread = self.reply is None and not self._decoder.partial
            data = b""
        if not data:
            self.ended = True
            return False
        self._take(data)
        return self.problem is None

    def _take(self, data: bytes) -> None:
        try:
            frames = self._decoder.feed(data)
        except FrameError as error:
            self.problem = str(error)
        else:
            for frame in frames:
                if self.reply is not None:
                    self.problem = "a second reply"
                self.reply = frame
            if self.reply is not None and self._decoder.partial:
                self.problem = "more than the reply"
            if not frames and self.problem is None:
                return
        self._on_news()

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # its end is seen elsewhere
            self.unread = True
            self._unsent = memoryview(b"")
        if not self._unsent:
            self._loop.remove_writer(self._socket.fileno())


class Capture:
    """What a process writes to its stdout and stderr, up to `limit` bytes in sum; the rest is counted.

    Until `listen` is called only the end of stderr is kept.
    """

    def __init__(self, stdout: int, stderr: int, *, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._left = limit
        self._dropped = 0
        self._output: Callable[[str, str], None] | None = None
        self._tail = b""
        self._descriptors = {"stdout": stdout, "stderr": stderr}
        new_decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {"stdout": new_decoder("replace"), "stderr": new_decoder("replace")}
        for stream, descriptor in self._descriptors.items():
            os.set_blocking(descriptor, False)
            self._loop.add_reader(descriptor, self._readable, stream)

    @property
    def stderr_tail(self) -> str:
        """The last of what was written to stderr."""
        return self._tail.decode("utf-8", "replace").strip()

    def listen(self, output: Callable[[str, str], None]) -> None:
        """Hand every piece of text to `output` from now on."""
        self._output = output

    def close(self) -> None:
        """Read what is there, and close; whoever still writes gets EPIPE."""
        for stream in list(self._descriptors):
            for _ in range(_LAST_READS):
                if not self._read(stream):
                    break
            self._close(stream)
        if self._dropped:
            self._tell("stderr", f"[{self._dropped} bytes of output dropped: above max_output_bytes]\n")
            self._dropped = 0

    def _readable(self, stream: str) -> None:
        self._read(stream)

    def _read(self, stream: str) -> bool:
        """Read one piece; return whether there may be another."""
        descriptor = self._descriptors.get(stream)
        if descriptor is None:
            return False
        try:
            data = os.read(descriptor, CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            data = b""
        if not data:
            self._close(stream)
            return False
        if stream == "stderr":
            self._tail = (self._tail + data)[-LONGEST_TAIL:]
        kept = data[: self._left]
        self._left -= len(kept)
        self._dropped += len(data) - len(kept)
        if kept and self._output is not None:
            self._tell(stream, self._decoders[stream].decode(kept))
        return True

    def _close(self, stream: str) -> None:
        descriptor = self._descriptors.pop(stream, None)
        if descriptor is not None:
            self._loop.remove_reader(descriptor)
            os.close(descriptor)
            self._tell(stream, self._decoders[stream].decode(b"", final=True))

    def _tell(self, stream: str, text: str) -> None:
        if not text or self._output is None:
            return
        try:
            self._output(stream, text)
        except Exception as error:
            # Foreign code, and an attempt must not end by it.
            self._output = None
            message = "what takes a job's output failed, and gets no more of it"
            self._loop.call_exception_handler({"message": message, "exception": error})
