import warnings

from keras_attn.training import noise

NOISE = b"""\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1796044251.677387   27868 port.cc:153] oneDNN custom operations are on.
2026-01-01 10:00:00.123456: I tensorflow/core/platform/cpu_feature_guard.cc:210] This
"""


def test_warnings_are_one_line(monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    noise.hide_noise()
    line = warnings.formatwarning("on two\n lines", UserWarning, "a.py", 1, "code")
    assert line == "warning: on two lines\n"


def test_errors_in_the_output_of_an_import_are_no_noise():
    lines = [line for line in NOISE.splitlines() if not noise.NOISE.match(line)]
    assert lines == []
    for line in (b"Killed", b"F0000 00:00 x.cc:1] fatal", b"Illegal instruction"):
        assert not noise.NOISE.match(line)
