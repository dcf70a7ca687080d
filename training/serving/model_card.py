"""The card of an exported model: origin, accuracy and signatures."""

from keras_attn.pipelines.files import DAMAGE, read_json
from keras_attn.training.runs.card import facts_of, kept_facts
from keras_attn.training.runs.environment import commit, versions

NAME = "card.md"
UNKNOWN = "unknown: a model file, without the folder of its run"


def model_card(trained, name, version, signatures):
    """The text of `card.md`.

    Args:
        trained: `Trained`.
        name, version: Name and version of the served model.
        signatures: Result of `signatures_of`, or `None` for a format that has only
            one.

    Returns:
        Markdown.
    """
    parts = [f"# {name}, version {version}", "", *_lines(_facts(trained))]
    parts += ["", "## Measured", "", *_measured(trained)]
    if signatures:
        parts += ["", "## Signatures", "", *_table(signatures)]
    return "\n".join([*parts, ""])


def _lines(facts):
    return [f"- {name}: {value}" for name, value in facts.items()]


def _facts(trained):
    spec = trained.spec
    if trained.run is None:
        facts = {
            "Training": UNKNOWN,
            "Licence of the data": spec.licence or "unknown",
            "Source of the data": spec.source or "unknown",
            "Images": f"{spec.height} x {spec.width} pixels",
        }
    else:
        # Those kept in the run are of the commit that trained it.
        facts = {
            **facts_of(trained.run, spec),
            "Commit": "unknown",
            "Versions": "unknown",
            **kept_facts(trained.run),
        }
        facts["Model"] = f"{trained.checkpoint}, after epoch {trained.epoch}"
    if trained.class_names:
        facts["Classes"] = ", ".join(trained.class_names)
    return {
        **facts,
        "Exported by commit": commit(),
        "Exported by versions": versions(),
    }


def _measured(trained):
    """Results of `keras-attn evaluate` for this very model, else its validation."""
    found = [
        f"- Accuracy, {each['split']} split of {each['dataset']}: "
        f"{100 * each['accuracy']:.2f} % of {each['examples']} images"
        for each in _evaluations(trained)
    ]
    if found:
        return [*found, "", "Measured by `keras-attn evaluate` before the export."]
    if trained.run is None:
        return ["Its accuracy is unknown."]
    return [
        "Only during training, see the validation above. `keras-attn evaluate` "
        "before the export adds the accuracy on other images."
    ]


def _evaluations(trained):
    if trained.run is None:
        return []
    path = trained.run.workdir / "evaluation.json"
    if not path.exists():
        return []
    try:
        found = [each.get(trained.checkpoint) for each in read_json(path).values()]
        # Those of an earlier epoch are of another model.
        return [each for each in found if each and each["epoch"] == trained.epoch]
    except DAMAGE as error:
        raise ValueError(
            f"Cannot read {path}: {error}. Delete it and evaluate again."
        ) from error


def _table(signatures):
    lines = ["| signature | input | outputs |", "|---|---|---|"]
    for name, signature in signatures.items():
        columns = [
            "<br>".join(
                f"`{tensor}` {spec['dtype']} {_shape(spec['shape'])}"
                for tensor, spec in signature[kind].items()
            )
            for kind in ("inputs", "outputs")
        ]
        lines.append(f"| `{name}` | {columns[0]} | {columns[1]} |")
    return lines


def _shape(sizes):
    return "x".join("?" if size is None else str(size) for size in sizes)
