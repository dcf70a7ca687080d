"""The meeting of the processes of a training, and the form of their messages.

Process 0 listens at an address and the others come there with their numbers.
"""

import contextlib
import json
import socket
import struct
import sys
import time

from keras_attn.version import __version__

# Seconds between attempts to reach process 0, and for what a stranger sends there.
RETRY, PATIENCE = 0.2, 5.0
# Kinds of messages: content of an exchange, the reason of an end, a regular end.
CONTENT, REASON, END = b"c", b"r", b"e"
HEADER = struct.Struct(">cQ")


def meet(coordinator, count, number, timeout, server=None, check=lambda: None):
    """Sockets to the other processes by their numbers, and where JAX's service is.

    Arguments and errors are those of `joined`.
    """
    host, port = address(coordinator)
    if not 0 <= number < count or count < 2:
        raise ValueError(
            "Expected at least 2 processes and a process-id from 0 to one less. "
            f"Received: process-id={number}, processes={count}"
        )
    if number:
        peers, free = _come(host, port, count, number, timeout)
    else:
        peers, free = _welcome(host, port, count, timeout, server, check)
    for peer in peers.values():
        # A host that vanishes closes no connection.
        peer.settimeout(None)
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("IDLE", 10), ("INTVL", 5), ("CNT", 4)):
            if hasattr(socket, f"TCP_KEEP{name}"):
                option = getattr(socket, f"TCP_KEEP{name}")
                peer.setsockopt(socket.IPPROTO_TCP, option, value)
    return peers, f"{host}:{free}"


def address(coordinator):
    """Host and port of `HOST:PORT`."""
    host, colon, port = coordinator.rpartition(":")
    if not (host and colon and port.isdecimal() and 0 < int(port) < 2**16):
        raise ValueError(
            f"Expected the address of process 0, HOST:PORT. Received: {coordinator!r}"
        )
    return host.strip("[]"), int(port)


def listen(host, port=0):
    """A socket that listens at an address of this host."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(
            f"Process 0 cannot listen at {host}:{port}: {error.strerror or error}"
        ) from error


def _welcome(host, port, count, timeout, server, check):
    """Sockets of all other processes, and the port of JAX's own service."""
    peers, deadline = {}, time.monotonic() + timeout
    try:
        with server or listen(host, port) as server:
            server.settimeout(RETRY)
            while len(peers) < count - 1:
                check()
                if time.monotonic() > deadline:
                    missing = sorted(set(range(1, count)) - set(peers))
                    raise OSError(
                        f"Expected {count} processes at {host}:{port} within "
                        f"{timeout:g} s. Received: none of number "
                        + ", ".join(map(str, missing))
                    )
                with contextlib.suppress(TimeoutError):
                    peer, _ = server.accept()
                    _greet(peer, peers, count)
    except (OSError, ValueError) as error:
        for peer in peers.values():
            with contextlib.suppress(OSError):
                send(peer, REASON, str(error).encode())
        raise
    with listen(host) as free:
        jax_port = free.getsockname()[1]
    for peer in peers.values():
        # One that has gone is noticed by whoever reads from it next.
        with contextlib.suppress(OSError):
            send(peer, CONTENT, str(jax_port).encode())
    return peers, jax_port


def _greet(peer, peers, count):
    """Adds a process that introduces itself to the others."""
    peer.settimeout(PATIENCE)
    try:
        hello = json.loads(receive(peer, limit=1000)[1])
        number = int(hello["number"])
        given = {name: hello[name] for name in ("processes", "version")}
    except (OSError, ValueError, LookupError, TypeError):
        # Somebody else's connection.
        peer.close()
        return
    wanted = {"processes": count, "version": __version__}
    reason = ""
    if given != wanted:
        reason = (
            f"Expected {wanted} as in process 0. Received: {given} in process {number}"
        )
    elif number in peers:
        reason = f"Expected one process of each number. Received: two of {number}"
    if reason:
        send(peer, REASON, reason.encode())
        raise ValueError(reason)
    peers[number] = peer


def _come(host, port, count, number, timeout):
    """The socket to process 0, and the port of JAX's service there."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            peer = socket.create_connection((host, port), PATIENCE)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                raise OSError(
                    f"Expected process 0 at {host}:{port} within {timeout:g} s. "
                    f"Received: {error.strerror or error}"
                ) from error
            time.sleep(RETRY)
    hello = {"number": number, "processes": count, "version": __version__}
    send(peer, CONTENT, json.dumps(hello).encode())
    # The others may come late.
    peer.settimeout(timeout + PATIENCE)
    try:
        kind, content = receive(peer)
    except OSError as error:
        raise OSError(
            f"Expected process 0 at {host}:{port} to answer. Received: "
            f"{error.strerror or error}"
        ) from error
    if kind == REASON:
        raise ValueError(content.decode())
    return {0: peer}, int(content)


def send(peer, kind, content=b""):
    peer.sendall(HEADER.pack(kind, len(content)) + content)


def receive(peer, limit=sys.maxsize):
    """Kind and content of the next message."""
    kind, size = HEADER.unpack(_exactly(peer, HEADER.size))
    if size > limit:
        raise ValueError("too long")
    return kind, _exactly(peer, size)


def _exactly(peer, size):
    content = bytearray()
    while len(content) < size:
        part = peer.recv(min(size - len(content), 2**20))
        if not part:
            raise OSError("the connection was closed")
        content += part
    return bytes(content)
