"""Measures, studies and figures: their protocols, and the names in experiments."""

import inspect
import types

import pytest

from keras_attn.training.experiments import figures, measures, studies
from keras_attn.training.experiments.protocol import Figure, Measure, Study
from keras_attn.training.recipes.registry import EXPERIMENTS

ARGUMENTS = {
    Measure: ["run", "splits"],
    Study: ["runs", "sources"],
    Figure: ["runs", "examples", "class_names"],
}


@pytest.mark.parametrize(
    "protocol, known",
    [
        (Measure, measures.MEASURES),
        (Figure, figures.FIGURES),
        (Study, {name: studies.get_study(name) for name in studies.STUDIES}),
    ],
)
def test_all_fulfil_their_protocol(protocol, known):
    assert known
    for name, each in known.items():
        assert isinstance(each, protocol), name
        call = getattr(each, "study", each)
        assert list(inspect.signature(call).parameters) == ARGUMENTS[protocol], name


def test_the_protocols_refuse_something_else():
    assert not isinstance(types.SimpleNamespace(measure=print), Study)
    assert isinstance(types.SimpleNamespace(study=print), Study)
    assert not isinstance("accuracy", Measure) and not isinstance("tsne", Figure)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_experiments_name_what_there_is(name):
    experiment = EXPERIMENTS[name]
    assert experiment.measure in measures.MEASURES
    assert experiment.figure in ("", *figures.FIGURES)
    assert experiment.study in ("", *studies.STUDIES)


def test_helpers_of_studies_are_no_studies():
    assert "retrieval" in studies.STUDIES
    assert not [name for name in studies.STUDIES if name.startswith("_")]
    with pytest.raises(ValueError, match="Did you mean 'retrieval'"):
        studies.get_study("retreival")
    with pytest.raises(ValueError, match="Expected `study` to be one of"):
        studies.get_study("_rankings")


def test_a_figure_is_asked_for_its_packages(monkeypatch):
    def missing():
        raise ImportError("needs a package")

    assert figures.get_figure("attention_maps") is figures.FIGURES["attention_maps"]
    monkeypatch.setitem(figures.REQUIREMENTS, "tsne", missing)
    with pytest.raises(ImportError, match="needs a package"):
        figures.get_figure("tsne")
    with pytest.raises(ValueError, match="Did you mean 'tsne'"):
        figures.get_figure("tsn")
