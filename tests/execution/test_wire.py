"""The frames of the control channel."""

from __future__ import annotations

import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncjobs.execution.inside.wire import LARGEST_HEADER, Decoder, FrameError, pack, read_frame, write_all


@given(st.lists(st.tuples(st.binary(), st.binary())), st.integers(min_value=1, max_value=9))
def test_frames_come_back_in_whatever_pieces_they_arrive(frames, size):
    data = b"".join(pack(*frame) for frame in frames)
    decoder = Decoder(payload_limit=1000)

    decoded = [each for i in range(0, len(data), size) for each in decoder.feed(data[i : i + size])]

    assert decoded == frames
    assert not decoder.partial


def test_a_frame_that_is_not_whole_is_partial():
    decoder = Decoder(payload_limit=10)

    assert decoder.feed(pack(b"{}", b"12")[:-1]) == []
    assert decoder.partial


def test_a_payload_above_the_limit_is_refused_by_its_length_alone():
    with pytest.raises(FrameError, match="payload of 11 bytes"):
        Decoder(payload_limit=10).feed(pack(b"", b"x" * 11)[:8])


@pytest.mark.parametrize("data", [b"\xff" * 8, b"GET / HTTP/1.1\r\n"], ids=["bytes", "text"])
def test_garbage_is_refused(data):
    with pytest.raises(FrameError, match="header of"):
        Decoder(payload_limit=10).feed(data)


def test_a_header_above_the_limit_is_not_sent():
    with pytest.raises(FrameError):
        pack(b"x" * (LARGEST_HEADER + 1))


def test_a_blocking_reader_gets_a_frame_larger_than_any_buffer():
    reader, writer = os.pipe()
    frame = (b"{}", b"x" * 3_000_000)
    thread = threading.Thread(target=write_all, args=(writer, pack(*frame)))
    thread.start()

    assert read_frame(reader) == frame
    thread.join()
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("length", [0, 3, 9])
def test_an_end_of_file_anywhere_in_a_frame_is_no_frame(length):
    reader, writer = os.pipe()
    os.write(writer, pack(b"{}", b"12")[:length])
    os.close(writer)

    assert read_frame(reader) is None
    os.close(reader)
