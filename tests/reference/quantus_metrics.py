"""Metrics of Quantus, in a process of its own.

Run as `python quantus_metrics.py GIVEN.npz FOUND.npz`.
"""

import sys

import numpy as np
import quantus
import torch


class Network(torch.nn.Module):
    """Scores that are `tanh` of sums of pixels, with these weights."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.tensor(weights))

    def forward(self, images):
        return torch.tanh(images.flatten(1) @ self.weights)


def main(given, found):
    given = dict(np.load(given))
    model = Network(given["weights"]).eval()
    images, maps = given["images"][:, None], given["maps"][:, None]
    labels, masks = given["labels"], given["masks"][:, None]
    data = dict(model=model, x_batch=images, y_batch=labels, device="cpu")
    plain = dict(normalise=False, disable_warnings=True)
    results = {}
    for name, metric in {
        "relevance_mass_accuracy": quantus.RelevanceMassAccuracy,
        "relevance_rank_accuracy": quantus.RelevanceRankAccuracy,
    }.items():
        results[name] = metric(**plain)(a_batch=maps, s_batch=masks, **data)
    results["sparseness"] = quantus.Sparseness(**plain)(a_batch=maps, **data)

    choices = iter(given["choices"])
    np.random.choice = lambda *_, **__: next(choices)
    correlation = quantus.FaithfulnessCorrelation(
        nr_runs=int(given["subsets"]),
        subset_size=given["choices"].shape[1],
        return_aggregate=False,
        **plain,
    )
    results["faithfulness_correlation"] = correlation(a_batch=maps, **data)

    percentages = (100 * given["shares"]).tolist()
    road = quantus.ROAD(percentages, noise=0.0, **plain)
    by_share = road(a_batch=maps, **data)
    results["road"] = [by_share[each] for each in percentages]

    changes = iter(given["changes"])
    np.random.uniform = lambda *_, **__: next(changes).reshape(len(images), -1)
    sensitivity = quantus.MaxSensitivity(
        nr_samples=len(given["changes"]), lower_bound=0.2, **plain
    )

    def explain(model, inputs, targets, **_):
        return np.square(inputs)

    squares = np.square(images)
    results["max_sensitivity"] = sensitivity(
        a_batch=squares, explain_func=explain, **data
    )
    np.savez(found, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
