"""Commands that train in several processes, on this host or on several."""

import contextlib
import os
import subprocess
import sys
import tempfile

TIMEOUT = 300.0
# Keras's own variables, the defaults of the options.
ADDRESS, COUNT, NUMBER = (
    f"KERAS_DISTRIBUTION_{name}"
    for name in ("JOB_ADDRESSES", "NUM_PROCESSES", "PROCESS_ID")
)


def add_hosts(added):
    """Adds the arguments of a training in several processes."""
    added.add_argument(
        "--processes",
        type=int,
        metavar="N",
        default=os.environ.get(COUNT),
        help="train in N processes on JAX; without --coordinator all on this host",
    )
    added.add_argument(
        "--coordinator",
        metavar="HOST:PORT",
        default=os.environ.get(ADDRESS, "").split(",")[0] or None,
        help="address at which the processes meet: the host of process 0, a free port",
    )
    added.add_argument(
        "--process-id",
        type=int,
        metavar="I",
        default=os.environ.get(NUMBER),
        help="number of this process, from 0",
    )
    added.add_argument(
        "--host-timeout",
        type=float,
        default=TIMEOUT,
        metavar="SECONDS",
        help=f"time in which all processes have to come ({TIMEOUT:g})",
    )


@contextlib.contextmanager
def joined(arguments):
    """Context in which this process is one of those that the arguments name."""
    given = {
        name: getattr(arguments, name.replace("-", "_"))
        for name in ("processes", "coordinator", "process-id")
    }
    count, coordinator, number = given.values()
    if coordinator is None and number is None and count in (None, 1):
        yield
        return
    from keras_attn.training.runs import hosts

    hosts.check_backend()
    if count is not None and coordinator is None and number is None:
        with (
            _launched(count, arguments) as (place, server, check),
            hosts.joined(place, count, 0, arguments.host_timeout, server, check),
        ):
            yield
        return
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if missing:
        raise ValueError(
            "Expected --processes N alone, to start all on this host, or with "
            "--coordinator HOST:PORT and --process-id I, for one of them. Received: "
            f"no {' and no '.join(missing)}"
        )
    with hosts.joined(coordinator, count, number, arguments.host_timeout):
        yield


@contextlib.contextmanager
def _launched(count, arguments):
    """Context in which the processes but 0, this one, run beside it.

    Yields their meeting place, the socket there, and a function that raises if one of
    them has ended. They end with this one, since they lose their connection to it.
    """
    from keras_attn.training.runs.meeting import listen

    if count < 2:
        raise ValueError(f"Expected at least 1 process. Received: processes={count}")
    server = listen("127.0.0.1")
    place = f"127.0.0.1:{server.getsockname()[1]}"
    program = [sys.executable, "-m", "keras_attn.training.cli", *arguments.argv]
    started = []

    def check():
        for number, (process, log) in enumerate(started, 1):
            if process.poll() is not None:
                log.seek(0)
                last = (log.read().strip().splitlines() or ["no message"])[-1]
                raise ChildProcessError(
                    f"Process {number} of {count} ended with status "
                    f"{process.returncode}: {last}"
                )

    with contextlib.ExitStack() as stack:
        for number in range(1, count):
            log = stack.enter_context(tempfile.TemporaryFile("w+"))
            process = subprocess.Popen(
                [*program, "--coordinator", place, "--process-id", str(number)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                # Ctrl-C is for this process, which then ends them.
                start_new_session=True,
            )
            stack.callback(_end, process)
            started.append((process, log))
        yield place, server, check


def _end(process):
    """Ends a process that does not by itself."""
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
