"""Processes meet, exchange what they have, and end with one line."""

import concurrent.futures
import socket
import threading
import time
import types

import keras
import numpy as np
import pytest

from keras_attn.training import cli
from keras_attn.training.commands.hosts import joined
from keras_attn.training.runs import hosts, meeting

SECONDS = 5.0


@pytest.fixture
def pool():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        yield pool


def met(pool, *others, count=2, timeout=SECONDS):
    """Futures of `meet` of process 0 and of others, by `(number, count)`."""
    server = meeting.listen("127.0.0.1")
    place = f"127.0.0.1:{server.getsockname()[1]}"
    first = pool.submit(meeting.meet, place, count, 0, timeout, server)
    return first, *[
        pool.submit(meeting.meet, place, of, number, timeout) for number, of in others
    ]


@pytest.fixture
def groups(pool):
    found = met(pool, (1, 3), (2, 3), count=3)
    peers = [each.result()[0] for each in found]
    found = [hosts.Connected(number, 3, each) for number, each in enumerate(peers)]
    yield found
    for group in found:
        group.ending = True
    for each in peers:
        for peer in each.values():
            peer.close()


def everywhere(pool, groups, call):
    return [each.result(SECONDS) for each in [pool.submit(call, g) for g in groups]]


def test_what_one_process_has_all_get(pool, groups):
    found = everywhere(pool, groups, lambda group: group.exchange(b"%d" % group.number))
    assert found == [[b"0", b"1", b"2"]] * 3
    assert everywhere(pool, groups, lambda g: g.share(b"%d" % g.number)) == [b"0"] * 3
    for arrays in everywhere(pool, groups, lambda g: g.arrays(np.full(2, g.number))):
        np.testing.assert_array_equal(arrays, [[0, 0], [1, 1], [2, 2]])


@pytest.mark.parametrize("count", [2, 7])
def test_rows_are_computed_once_and_come_in_order(pool, groups, count):
    computed = []

    def compute(own):
        rows = np.arange(count)[own]
        computed.extend(rows)
        return [rows[:, None], rows.astype("float32") / 2]

    for whole, halves in everywhere(pool, groups, lambda g: g.rows(compute, count)):
        np.testing.assert_array_equal(whole[:, 0], np.arange(count))
        np.testing.assert_array_equal(halves, np.arange(count) / 2)
    # Fewer rows than processes are computed by each.
    assert len(computed) == (7 if count == 7 else 6)


def test_the_first_difference_of_facts_is_the_error_of_all(pool, groups):
    def check(group):
        with pytest.raises(ValueError) as error:
            group.agree({"seed": 1, "epochs": 2 + (group.number == 2)})
        return str(error.value)

    (message,) = set(everywhere(pool, groups, check))
    assert message == (
        "Expected the same epochs in all 3 processes. Received: epochs=3 in process 2, "
        "2 in process 0"
    )
    everywhere(pool, groups, lambda group: group.agree({"seed": 1}))


def test_a_file_of_process_0_is_one_everywhere(pool, groups, tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "state.npz").write_bytes(b"state")

    def read(group):
        with group.file(tmp_path / str(group.number) / "state.npz") as file:
            return file.read_bytes()

    assert everywhere(pool, groups, read) == [b"state"] * 3


def test_process_0_goes_first(pool, groups):
    order = []

    def compute(group):
        with group.first():
            time.sleep(0.1 * group.is_first)
            order.append(group.number)

    everywhere(pool, groups, compute)
    assert order[0] == 0 and sorted(order) == [0, 1, 2]


def test_a_lost_process_ends_the_others(pool, monkeypatch):
    first, second = (each.result()[0] for each in met(pool, (1, 2)))
    ended = threading.Event()
    monkeypatch.setattr(hosts.os, "_exit", lambda status: ended.set())
    lines = []
    monkeypatch.setattr(hosts.os, "write", lambda stream, line: lines.append(line))
    hosts.Connected(0, 2, first)
    second[0].close()
    assert ended.wait(SECONDS)
    assert lines[0].startswith(b"error: Process 1 of 2 has ended, or its host cannot")


def test_a_failure_is_the_line_of_the_others(pool, monkeypatch):
    first, second = (each.result()[0] for each in met(pool, (1, 2)))
    ended, lines = threading.Event(), []
    monkeypatch.setattr(hosts.os, "_exit", lambda status: ended.set())
    monkeypatch.setattr(hosts.os, "write", lambda stream, line: lines.append(line))
    hosts.Connected(0, 2, first)
    hosts.Connected(1, 2, second).fail("Process 1 of 2: no space")
    assert ended.wait(SECONDS)
    assert lines[0] == b"error: Process 1 of 2: no space\n"


def test_a_process_that_does_not_come_is_named(pool):
    first, second = met(pool, (1, 3), count=3, timeout=0.5)
    with pytest.raises(OSError, match="Expected 3 processes .* within 0.5 s. .*: none"):
        first.result()
    with pytest.raises(ValueError, match="Received: none of number 2"):
        second.result()
    with pytest.raises(OSError, match="Expected process 0 at .* within 0 s. Received"):
        meeting.meet(f"127.0.0.1:{free_port()}", 2, 1, 0)


def free_port():
    with meeting.listen("127.0.0.1") as server:
        return server.getsockname()[1]


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ([(1, 4)], "'processes': 4"),
        ([(1, 3), (1, 3)], "one process of each number. Received: two of 1"),
    ],
)
def test_processes_that_do_not_fit_are_the_error_of_all(pool, others, message):
    for each in met(pool, *others, count=3):
        with pytest.raises(ValueError, match=message):
            each.result()


def test_strangers_do_not_disturb(pool):
    server = meeting.listen("127.0.0.1")
    port = server.getsockname()[1]
    place = f"127.0.0.1:{port}"
    first = pool.submit(meeting.meet, place, 2, 0, SECONDS, server)
    for content in (b"GET / HTTP/1.1\r\n\r\n", b"", b"c" + bytes(7) + b"\x02[]"):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(content)
    meeting.meet(place, 2, 1, SECONDS)
    assert list(first.result()[0]) == [1]


@pytest.mark.parametrize("place", ["host", "host:", ":1", "host:http", "host:70000"])
def test_an_address_is_checked(place):
    with pytest.raises(ValueError, match=r"Expected the address .* HOST:PORT"):
        meeting.meet(place, 2, 0, 1)


@pytest.mark.parametrize("number", [-1, 2, 7])
def test_a_number_is_checked(number):
    with pytest.raises(ValueError, match=f"process-id={number}, processes=2"):
        meeting.meet("127.0.0.1:1", 2, number, 1)


def test_an_address_in_use_is_one_line():
    with meeting.listen("127.0.0.1") as server:
        port = server.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen at 127.0.0.1:{port}"):
            meeting.meet(f"127.0.0.1:{port}", 2, 0, 1)


JAX = keras.backend.backend() == "jax"


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--processes", "0"], "at least 1 process. Received: processes=0"),
        (["--processes", "2", "--process-id", "1"], "Received: no --coordinator"),
        (["--coordinator", "a:1"], "Received: no --processes and no --process-id"),
        (
            ["--processes", "2", "--process-id", "2", "--coordinator", "a:1"],
            "process-id=2, processes=2",
        ),
    ],
)
def test_mistakes_are_one_line(words, line, capsys):
    assert cli.main(["train", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert (line if JAX else "set KERAS_BACKEND=jax. Received:") in error


def test_a_launched_process_that_fails_at_once_is_named(monkeypatch):
    monkeypatch.setattr(hosts, "check_backend", lambda: None)
    given = dict(processes=2, coordinator=None, process_id=None, host_timeout=60.0)
    arguments = types.SimpleNamespace(**given, argv=["nonsense"])
    line = "Process 1 of 2 ended with status 2: error: .*nonsense"
    with pytest.raises(ChildProcessError, match=line), joined(arguments):
        raise AssertionError("it has not met")


def test_alone_nothing_is_different():
    group = hosts.Group()
    assert group.share(b"x") == b"x" and group.is_first
    assert group.part == (0, 1)
    group.agree({})
