"""Runs one comparison on one backend: `python -m benchmarks.worker NAME OUTPUT`.

The backend is chosen by KERAS_BACKEND. The rows are written to OUTPUT as JSON, so
that whatever a library prints does no harm.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib

import keras

from keras_attn.training.runs.environment import commit, hardware, versions


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="benchmarks.worker")
    parser.add_argument("name")
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args(arguments)
    keras.utils.set_random_seed(0)
    benchmark = importlib.import_module(f"benchmarks.{options.name}")
    rows = [
        {
            "benchmark": options.name,
            **dataclasses.asdict(measurement),
            "backend": keras.backend.backend(),
            "commit": commit(),
            "versions": versions(),
            "hardware": hardware(),
        }
        for measurement in benchmark.run(options.quick)
    ]
    options.output.write_text(json.dumps(rows))


if __name__ == "__main__":
    main()
