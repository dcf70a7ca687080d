"""Writes the examples as notebooks: `python docs/build/notebooks.py`."""

import json
import pathlib
import re

FOLDER = pathlib.Path(__file__).resolve().parent.parent.parent / "examples"
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def notebook(text):
    """The notebook of a script in the percent format, without outputs."""
    parts = re.split(r"^# %%(.*)\n", text, flags=re.MULTILINE)
    cells = []
    for number, (kind, body) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
        lines = body.strip("\n").splitlines(keepends=True)
        cell = {"id": f"cell-{number}", "metadata": {}, "source": lines}
        if kind.strip() == "[markdown]":
            cell["source"] = [re.sub("^# ?", "", line) for line in lines]
            cell["cell_type"] = "markdown"
        else:
            cell |= {"cell_type": "code", "execution_count": None, "outputs": []}
        cells.append(dict(sorted(cell.items())))
    metadata = {"kernelspec": KERNEL}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def main():
    for script in sorted(FOLDER.glob("*.py")):
        if script.stem != "example_data":
            text = json.dumps(notebook(script.read_text()), indent=1) + "\n"
            script.with_suffix(".ipynb").write_text(text)


if __name__ == "__main__":
    main()
