import os
import signal
import subprocess
import sys
import time

import pytest

from tests.training.test_noise import NOISE

ERROR = b"E0000 00:00:1796044251.677387   27868 driver.cc:1] the driver is too old\n"


def start(*arguments, code="", **environment):
    """Starts a command after `code`, with variables of the environment."""
    code = [
        "import signal, sys; sys.argv[0] = 'keras-attn'",
        # Jobs in the background are started with the signal ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)",
        code,
        "from keras_attn.training import cli; sys.exit(cli.main())",
    ]
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(code), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )


def interrupted(started, words=b"ready\n"):
    """Output after Ctrl-C, which ends the command in time."""
    assert started.stdout.readline() == words
    sent = time.monotonic()
    started.send_signal(signal.SIGINT)
    out, errors = started.communicate(timeout=60)
    assert started.returncode == 130, errors
    assert time.monotonic() - sent < 2
    return errors


def test_noise_of_an_import_is_hidden_and_ctrl_c_ends_it(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        f"import os, time\nos.write(2, {NOISE + ERROR!r})\nos.write(1, b'ready\\n')\n"
        "while True:\n  try: time.sleep(99)\n  except BaseException: pass\n"
    )
    started = start("summary", "generated_rn26_baseline", PYTHONPATH=str(tmp_path))
    assert interrupted(started) == ERROR + b"Interrupted.\n"


def test_the_message_of_a_crash_is_shown(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        f"import os\nos.write(2, {NOISE!r} + b'no AVX\\n')\nos.abort()\n"
    )
    started = start("summary", "generated_rn26_baseline", PYTHONPATH=str(tmp_path))
    out, errors = started.communicate()
    assert (started.returncode, out, errors) == (-signal.SIGABRT, b"", b"no AVX\n")


@pytest.mark.parametrize("hears", [True, False])
def test_ctrl_c_ends_what_does_not_listen(hears):
    """The second kind stands for long computations outside Python."""
    code = f"""
import time, keras_attn.training.commands.data as data
def run(arguments):
    while True:
        try:
            print("ready", flush=True)
            time.sleep(99)
        except KeyboardInterrupt:
            if {hears}:
                raise KeyboardInterrupt("Interrupted; all is kept.") from None
run.__name__ = "data"
data.data = run
"""
    expected = b"Interrupted; all is kept.\n" if hears else b"Interrupted.\n"
    assert interrupted(start("data", "x", code=code)) == expected


def test_ctrl_c_after_the_last_line():
    code = """
import atexit, time
def wait():
    print("ready", flush=True)
    time.sleep(99)
atexit.register(wait)
"""
    started = start("--version", code=code)
    assert started.stdout.readline().startswith(b"keras-attn ")
    assert interrupted(started) == b"Interrupted.\n"


def test_an_ignored_interrupt_stays_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    started = start("--version", code=code)
    assert started.communicate()[0].startswith(b"keras-attn ")
