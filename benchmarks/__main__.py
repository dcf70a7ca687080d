"""All comparisons, or the named ones: `python -m benchmarks [NAME ...] [--quick]`."""

import argparse
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from benchmarks import table
from benchmarks.catalogue import BENCHMARKS


def main(arguments=None):
    options = parse(arguments)
    names = options.names or list(BENCHMARKS)
    rows, left_out, failed = [], [], []
    for name in names:
        for backend in BENCHMARKS[name].backends:
            if importlib.util.find_spec(backend) is None:
                left_out.append(f"{name} on {backend}: {backend} is not installed")
                continue
            start = time.monotonic()
            print(f"{name} on {backend} ...", end=" ", file=sys.stderr, flush=True)
            try:
                rows += measured(name, backend, options.quick)
            except subprocess.CalledProcessError as error:
                print(error.stderr, file=sys.stderr)
                failed.append(f"{name} on {backend}: failed")
            else:
                seconds = time.monotonic() - start
                print(f"{seconds:.0f} s", file=sys.stderr)
    folder = options.results or (None if options.quick else pathlib.Path("results"))
    if folder and rows:
        old = table.read_csv(folder / "benchmarks.csv")
        kept = [row for row in old if row["benchmark"] not in names]
        order = list(BENCHMARKS)
        everything = sorted(kept + rows, key=lambda row: order.index(row["benchmark"]))
        table.write(folder, everything, left_out + failed)
    print(table.markdown(rows, left_out + failed))
    return 1 if failed else 0


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"one of {', '.join(BENCHMARKS)}; all by default",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer cases and repetitions; prints the table and writes no files",
    )
    parser.add_argument(
        "--results",
        type=pathlib.Path,
        metavar="FOLDER",
        help="folder of benchmarks.csv and benchmarks.md; `results` unless --quick",
    )
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(
            f"Expected names in {', '.join(BENCHMARKS)}. Received: {unknown[0]!r}"
        )
    return options


def measured(name, backend, quick):
    """Rows of one comparison, measured in a process of its own.

    Raises:
        subprocess.CalledProcessError: If the process failed.
    """
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "KERAS_BACKEND": backend}
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks.worker", name, str(output)]
        subprocess.run(
            command + ["--quick"] * quick,
            env=environment,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        return json.loads(output.read_text())


if __name__ == "__main__":
    sys.exit(main())
