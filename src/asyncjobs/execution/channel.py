"""The engine's end of a control channel, and what a process prints; both read by the loop itself.

Transports and their protocols would do the same at three times the price, and close a turn of the
loop later; here, what is closed is closed.
"""

from __future__ import annotations

import asyncio
import codecs
import os
import socket
from collections import deque
from collections.abc import Callable

from asyncjobs.execution.inside.wire import CHUNK, Decoder, Frame, FrameError

NOTE = b'{"note"'
"""How the header of a note begins."""
LONGEST_TAIL = 4096
_LAST_READS = 32  # of a pipe, once its process is over: a stranger that still writes is not waited for


class Channel:
    """One request out, any number of notes and one reply in.

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
        self._on_note: Callable[[bytes], None] | None = None
        self._unsent = memoryview(b"")
        self._open = True
        self.listening = self._waits_to_write = False
        end.setblocking(False)

    @property
    def partial(self) -> bool:
        """Whether the other side has begun a reply that is not whole."""
        return self.reply is None and self._decoder.partial

    def send(self, data: bytes, *, on_note: Callable[[bytes], None]) -> None:
        """Send a request, and have `on_note` take the header of each note that comes before the reply.

        It goes as fast as the other side takes it; what that never takes shows in `unread`.
        """
        self._on_note = on_note
        self._unsent = memoryview(data)
        self._writable()
        if self._unsent:
            self._waits_to_write = True
            self._loop.add_writer(self._socket.fileno(), self._writable)

    def finish(self) -> None:
        """Say that no request follows."""
        if self._open and not self._unsent:
            try:
                self._socket.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has gone

    def forget_reply(self) -> None:
        """Make ready for the next request."""
        self.reply = None
        self._on_note = None

    def drain(self) -> None:
        """Read what is there."""
        while self._open and not self.ended and self._read():
            pass

    def close(self) -> None:
        """Close this end, and tell the other side even if a forked copy of this process keeps it open."""
        if not self._open:
            return
        self._open = False
        if self.listening:
            self._loop.remove_reader(self._socket.fileno())
        if self._waits_to_write:
            self._loop.remove_writer(self._socket.fileno())
            self._unsent = memoryview(b"")
        if not self.ended:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the other side was faster
        self._socket.close()

    def listen(self) -> None:
        """Have the loop read what comes, as it comes."""
        if self._open and not self.listening and not self.ended:
            self.listening = True
            self._loop.add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        self._read()
        if self.ended or self.problem:
            self.listening = False
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
                self._take_frame(frame)
            if self.reply is not None and self._decoder.partial:
                self.problem = "more than the reply"
            if self.reply is None and self.problem is None:
                return
        self._on_news()

    def _take_frame(self, frame: Frame) -> None:
        if frame[0].startswith(NOTE):
            if self.reply is None:
                self._tell(frame[0])
            return
        if self.reply is not None:
            self.problem = "a second reply"
        self.reply = frame

    def _tell(self, note: bytes) -> None:
        if self._on_note is None:
            return
        try:
            self._on_note(note)
        except Exception as error:
            # Foreign code, and neither this attempt's end nor what is read with it may be lost by it.
            message = "what takes a job's notes failed"
            self._loop.call_exception_handler({"message": message, "exception": error})

    def _writable(self) -> None:
        try:
            self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # its end is seen elsewhere
            self.unread = True
            self._unsent = memoryview(b"")
        if not self._unsent and self._waits_to_write:
            self._loop.remove_writer(self._socket.fileno())
            self._waits_to_write = False


class Capture:
    """What a process writes to its stdout and stderr.

    Of an attempt's output the head and the tail are kept, half of `limit` bytes each; what is between
    them is counted. The head is handed over as it comes, the tail at the end. Outside an
    attempt only the end of stderr is kept.
    """

    def __init__(self, stdout: int, stderr: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._output: Callable[[str, str], None] | None = None
        self._stderr_tail = b""
        self._listening = False
        self._begin(0)
        self._descriptors = {"stdout": stdout, "stderr": stderr}
        for descriptor in self._descriptors.values():
            os.set_blocking(descriptor, False)

    def listen(self) -> None:
        """Have the loop read what is printed, as it is printed; without that it is read at the end."""
        if not self._listening:
            self._listening = True
            for stream, descriptor in self._descriptors.items():
                self._loop.add_reader(descriptor, self._read, stream)

    def _begin(self, limit: int) -> None:
        self._decoders: dict[str, codecs.IncrementalDecoder] = {}
        self._head_left = limit - limit // 2
        self._tail_limit = limit // 2
        self._tail: deque[tuple[str, bytes]] = deque()
        self._tail_size = 0
        self._dropped = 0

    @property
    def stderr_tail(self) -> str:
        """The last of what was written to stderr."""
        return self._stderr_tail.decode("utf-8", "replace").strip()

    def begin_attempt(self, output: Callable[[str, str], None], *, limit: int) -> None:
        """Hand every piece of text to `output` from now on."""
        self._stderr_tail = b""
        self._begin(limit)
        self._output = output

    def end_attempt(self) -> None:
        """Read what is there, and hand over the tail."""
        for stream in ("stdout", "stderr"):
            for _ in range(_LAST_READS):
                if not self._read(stream):
                    break
        if self._dropped:
            self._tell_rest()
            self._tell("stderr", f"[{self._dropped} bytes of output dropped: above max_output]\n")
        for stream, data in self._tail:
            self._tell(stream, self._decoded(stream, data))
        self._tell_rest()
        self._begin(0)
        self._output = None

    def close(self) -> None:
        """End the attempt, and close; whoever still writes gets EPIPE."""
        self.end_attempt()
        for stream in list(self._descriptors):
            self._close(stream)

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
            self._stderr_tail = (self._stderr_tail + data)[-LONGEST_TAIL:]
        if self._output is not None:
            head, rest = data[: self._head_left], data[self._head_left :]
            self._head_left -= len(head)
            if head:
                self._tell(stream, self._decoded(stream, head))
            if rest:
                self._keep_in_tail(stream, rest)
        return True

    def _keep_in_tail(self, stream: str, data: bytes) -> None:
        self._tail.append((stream, data))
        self._tail_size += len(data)
        while self._tail_size > self._tail_limit:
            first, piece = self._tail.popleft()
            surplus = min(self._tail_size - self._tail_limit, len(piece))
            self._tail_size -= surplus
            self._dropped += surplus
            if surplus < len(piece):
                self._tail.appendleft((first, piece[surplus:]))

    def _decoded(self, stream: str, data: bytes) -> str:
        if stream not in self._decoders:
            self._decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        return self._decoders[stream].decode(data)

    def _tell_rest(self) -> None:
        for stream, decoder in self._decoders.items():
            self._tell(stream, decoder.decode(b"", final=True))
        self._decoders = {}

    def _close(self, stream: str) -> None:
        descriptor = self._descriptors.pop(stream, None)
        if descriptor is not None:
            if self._listening:
                self._loop.remove_reader(descriptor)
            os.close(descriptor)

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
