"""The processes of one training, on one host or on several.

The connections by which they meet stay: over them they exchange what is not part of a
step, and learn at once that another one has ended, which a step itself may wait for in
vain.
"""

import atexit
import contextlib
import io
import json
import os
import pathlib
import queue
import sys
import tempfile
import threading
import time

import keras
import numpy as np

from keras_attn.pipelines.augment.operation import Part
from keras_attn.training.runs.meeting import (
    CONTENT,
    END,
    HEADER,
    REASON,
    meet,
    receive,
    send,
)

FAILED = 2
# Seconds in which the end of a process is known everywhere.
LATEST = 2.0
AGAIN = "The same command on all of them resumes"


class Group:
    """A process among others; by default it is alone.

    Attributes:
        number: Its number; process 0 alone writes files and lines.
        count: Number of processes.
    """

    number, count = 0, 1

    @property
    def is_first(self):
        return self.number == 0

    @property
    def part(self):
        """The `Part` of a batch that this process makes."""
        return Part(self.number, self.count)

    def exchange(self, content=b""):
        """The bytes of every process, in their order; each waits for the others."""
        return [content]

    def share(self, content):
        """The bytes of process 0."""
        return self.exchange(content if self.is_first else b"")[0]

    def arrays(self, array):
        """The array of every process, in their order."""
        if self.count == 1:
            return [array]
        file = io.BytesIO()
        np.save(file, array, allow_pickle=False)
        contents = self.exchange(file.getvalue())
        return [np.load(io.BytesIO(each), allow_pickle=False) for each in contents]

    def rows(self, compute, count):
        """The rows of arrays, of which every process computes some; a list.

        Args:
            compute: Function of an index that gives these rows of one array, or of a
                list of arrays.
            count: Number of rows.
        """
        shared = self.count > 1 and count >= self.count
        own = compute(slice(self.number, None, self.count) if shared else slice(None))
        own = own if isinstance(own, list) else [own]
        return [self._joined(array, count) for array in own] if shared else own

    def _joined(self, own, count):
        found = np.empty((count, *own.shape[1:]), own.dtype)
        for number, part in enumerate(self.arrays(own)):
            found[number :: self.count] = part
        return found

    @contextlib.contextmanager
    def file(self, path):
        """Context of a file with the content of process 0's."""
        if self.count == 1:
            yield path
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = pathlib.Path(folder) / path.name
            copy.write_bytes(self.share(path.read_bytes() if self.is_first else b""))
            yield copy

    def agree(self, facts):
        """Checks that a dict of facts is the same everywhere.

        Raises:
            ValueError: If it is not; the message names the first difference.
        """
        given = [json.loads(each) for each in self.exchange(json.dumps(facts).encode())]
        for number, other in enumerate(given):
            for name in {**given[0], **other}:
                first, here = given[0].get(name), other.get(name)
                if first != here:
                    raise ValueError(
                        f"Expected the same {name} in all {self.count} processes. "
                        f"Received: {name}={here!r} in process {number}, {first!r} in "
                        "process 0"
                    )

    @contextlib.contextmanager
    def first(self):
        """Context that process 0 enters before the others, for what it caches."""
        if not self.is_first:
            self.exchange()
        yield
        if self.is_first:
            self.exchange()

    def fail(self, reason):
        """Ends the other processes with the reason of this one."""

    def close(self):
        """Waits for the others and parts from them."""


class Connected(Group):
    """A process connected to the others, process 0 to each and each to process 0.

    Args:
        number, count: See `Group`.
        peers: Dict from the numbers of processes to their sockets.
    """

    def __init__(self, number, count, peers):
        self.number, self.count, self.peers = number, count, peers
        self.received = {peer: queue.Queue() for peer in peers}
        self.ending = False
        for peer in peers:
            threading.Thread(target=self._read, args=(peer,), daemon=True).start()

    def exchange(self, content=b""):
        if not self.is_first:
            send(self.peers[0], CONTENT, content)
            joined = self.received[0].get()
        else:
            contents = [content, *(self.received[p].get() for p in sorted(self.peers))]
            joined = b"".join(HEADER.pack(CONTENT, len(c)) + c for c in contents)
            for peer in self.peers.values():
                send(peer, CONTENT, joined)
        found = []
        while joined:
            size = HEADER.size + HEADER.unpack_from(joined)[1]
            found.append(joined[HEADER.size : size])
            joined = joined[size:]
        return found

    def _read(self, peer):
        while True:
            try:
                kind, content = receive(self.peers[peer])
            except OSError:
                kind, content = REASON, self._lost(peer).encode()
            if kind == CONTENT:
                self.received[peer].put(content)
            elif self.ending or kind == END:
                return
            else:
                self._end(content.decode(errors="replace"))

    def _lost(self, peer):
        return (
            f"Process {peer} of {self.count} has ended, or its host cannot be reached. "
            f"{AGAIN}."
        )

    def _end(self, reason):
        """Ends this process and, from process 0, the others, with one line."""
        self.fail(reason)
        # The main thread may wait for a step that never ends.
        os.write(2, f"error: {reason}\n".encode())
        os._exit(FAILED)

    def fail(self, reason):
        self.ending = True
        for peer in self.peers.values():
            with contextlib.suppress(OSError):
                send(peer, REASON, reason.encode())

    def close(self):
        self.exchange()
        self.ending = True
        for peer in self.peers.values():
            with contextlib.suppress(OSError):
                send(peer, END)


_group = Group()


def group():
    """The `Group` of this process."""
    return _group


@contextlib.contextmanager
def joined(coordinator, count, number, timeout=300.0, server=None, check=lambda: None):
    """Context in which this process is one of several; entered before JAX computes.

    Processes but the first print errors only. An error in one of them ends all.

    Args:
        coordinator: `HOST:PORT` at which process 0 is reached.
        count, number: Number of processes, and of this one from 0.
        timeout: Seconds to wait for the others.
        server: Socket of process 0 that listens there already.
        check: Called while process 0 waits; may raise.

    Raises:
        ValueError: If the arguments do not fit, or those of the processes differ.
        OSError: If the address cannot be used, or a process does not come in time.
    """
    global _group
    check_backend()
    import jax

    peers, place = meet(coordinator, count, number, timeout, server, check)
    _group = Connected(number, count, peers)
    try:
        jax.distributed.initialize(
            place, count, number, cluster_detection_method="deactivate"
        )
        with contextlib.ExitStack() as stack:
            _connect_devices()
            stack.enter_context(_unchecked())
            if number:
                silence = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(silence))
            yield _group
            _group.close()
        jax.distributed.shutdown()
    except BaseException as error:
        if isinstance(error, RuntimeError):
            # What a step made of the end of another process, which ends this one.
            time.sleep(LATEST)
        reason = " ".join(str(error).split()) or type(error).__name__
        _group.fail(f"Process {number} of {count}: {reason}")
        # JAX would wait for the others.
        atexit.register(_leave)
        raise
    finally:
        _group = Group()


def _connect_devices():
    """Lets JAX connect the devices of all processes; each waits for the others.

    The library that connects CPUs prints a line to the process's own stdout.
    """
    from jax.experimental import multihost_utils

    sys.stdout.flush()
    stdout, silence = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    try:
        multihost_utils.sync_global_devices("keras_attn")
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(silence)


@contextlib.contextmanager
def _unchecked():
    """Context without JAX's comparison of each value that goes to several hosts.

    It is a collective operation for every variable, and process 0 could not do anything
    by itself; `Group.agree` and `take_values` are what makes the processes the same.
    """
    from jax.experimental import multihost_utils

    kept = multihost_utils.assert_equal
    multihost_utils.assert_equal = lambda *values, **options: None
    try:
        yield
    finally:
        multihost_utils.assert_equal = kept


def _leave():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(FAILED)


def check_backend():
    """Raises ValueError on a backend that cannot train in several processes."""
    backend = keras.backend.backend()
    if backend != "jax":
        raise ValueError(
            "Expected the JAX backend for several processes: set KERAS_BACKEND=jax. "
            f"Received: KERAS_BACKEND={backend}"
            + (
                ", whose strategy for several processes Keras's fit does not support "
                "(https://github.com/keras-team/keras/issues/20585)"
                if backend == "tensorflow"
                else ""
            )
        )
