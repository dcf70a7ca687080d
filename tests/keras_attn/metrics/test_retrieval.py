import numpy as np
import pytest

from keras_attn.metrics import retrieval as metrics
from tests.reference import retrieval as reference

CUTOFFS = (1, 5, 10)


def random_case(seed, queries=7, images=40):
    generator = np.random.default_rng(seed)
    rankings = np.stack([generator.permutation(images) for _ in range(queries)])
    truth = []
    for _ in range(queries):
        order = generator.permutation(images)
        a, b, c = np.sort(generator.integers(0, images // 2, 3))
        truth.append(
            {"easy": order[:a], "hard": order[a:b].tolist(), "junk": order[b:c]}
        )
    return rankings, truth


@pytest.mark.parametrize("ranks", [[0, 2], [2, 0]])
def test_average_precision_by_hand(ranks):
    # Three images, of which the first and the third are right: trapezoids of width
    # 1/2 between precisions 1 and 1, and between 1/2 and 2/3.
    wanted = (1 + 1) / 2 / 2 + (1 / 2 + 2 / 3) / 2 / 2
    assert metrics.average_precision(ranks) == pytest.approx(wanted)


def test_average_precision_of_the_other_orders_of_three_images():
    assert metrics.average_precision([0]) == 1
    assert metrics.average_precision([1]) == pytest.approx((0 + 1 / 2) / 2)
    assert metrics.average_precision([2]) == pytest.approx((0 + 1 / 3) / 2)
    assert metrics.average_precision([1, 2]) == pytest.approx(
        (0 + 1 / 2 + 1 / 2 + 2 / 3) / 4
    )
    # One of two positives is not in the ranking at all.
    assert metrics.average_precision([0], positives=2) == 0.5
    assert np.isnan(metrics.average_precision([]))


def test_precision_looks_no_further_than_the_last_positive():
    assert metrics.precision_at([0, 1, 5], 10) == 3 / 6
    assert metrics.precision_at([0, 1, 5], 5) == 2 / 5
    assert metrics.precision_at([0, 1, 5], 1) == 1
    assert metrics.precision_at([3], 10) == 1 / 4
    assert np.isnan(metrics.precision_at([], 5))


def test_junk_leaves_the_ranking():
    ranks = metrics.positive_ranks([4, 2, 0, 3, 1], positives=[0, 1], junk=[2, 3])
    assert ranks.tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_a_walk_down_the_ranking(seed):
    rankings, truth = random_case(seed)
    scores = metrics.revisited_scores(rankings, truth, CUTOFFS)
    assert list(scores) == ["easy", "medium", "hard"]
    for setup, found in scores.items():
        precision, at_cutoffs = reference.revisited(rankings, truth, setup, CUTOFFS)
        assert found["map"] == pytest.approx(precision)
        for cutoff, wanted in zip(CUTOFFS, at_cutoffs, strict=True):
            assert found[f"mp@{cutoff}"] == pytest.approx(wanted)


def test_queries_without_positives_are_skipped():
    rankings, truth = random_case(0, queries=3)
    truth[1].update(easy=[], hard=[])
    scores = metrics.revisited_scores(rankings, truth)
    kept = metrics.revisited_scores(rankings[[0, 2]], [truth[0], truth[2]])
    assert scores == kept and scores["medium"]["queries"] == 2
    nothing = metrics.retrieval_scores(rankings[:1], [[]])
    assert nothing["queries"] == 0 and np.isnan(nothing["map"])


def test_positives_that_a_ranking_lacks_count_as_missed():
    scores = metrics.retrieval_scores([[3, 1]], [[3, 7]], cutoffs=[1])
    assert scores == {"queries": 1, "map": 0.5, "mp@1": 1.0}
    assert metrics.retrieval_scores([[3, 1]], [[7]], cutoffs=[1])["mp@1"] == 0


def test_refuses_sets_of_other_queries():
    with pytest.raises(ValueError, match="2 rankings, 1 and 1 sets"):
        metrics.retrieval_scores([[0], [0]], [[0]])


def test_images_are_ranked_by_their_product_and_ties_by_their_number():
    database = np.array([[1, 0], [0, 1], [1, 0], [0.6, 0.8]])
    ranking = metrics.rank([[1, 0], [0, 1]], database)
    assert ranking.tolist() == [[0, 2, 3, 1], [1, 3, 0, 2]]


def labelled(seed=0, images=30):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 6, images)
    labels[0] = 99
    embeddings = generator.normal(size=(images, 5)) + np.eye(5)[labels % 5]
    return embeddings, labels


def test_labelled_images_equal_one_query_at_a_time(monkeypatch):
    monkeypatch.setattr(metrics, "BLOCK", 100)
    embeddings, labels = labelled()
    precisions, recalls = [], []
    for query in range(len(labels)):
        others = [i for i in range(len(labels)) if i != query]
        cosine = [
            -np.dot(embeddings[i], embeddings[query]) / np.linalg.norm(embeddings[i])
            for i in others
        ]
        ranking = [others[i] for i in np.argsort(cosine)]
        right = {i for i in others if labels[i] == labels[query]}
        if not right:
            continue
        entry = {"easy": right, "hard": [], "junk": []}
        precision, _ = reference.revisited([ranking], [entry], "easy", [1])
        precisions.append(precision)
        recalls.append([bool(right & set(ranking[:k])) for k in (1, 3)])
    assert metrics.retrieval_map(embeddings, labels) == pytest.approx(
        np.mean(precisions)
    )
    for cutoff, wanted in zip((1, 3), np.mean(recalls, axis=0), strict=True):
        found = metrics.recall_at(embeddings, labels, cutoff)
        assert found == pytest.approx(wanted)


def test_labels_may_be_names_and_lengths_do_not_matter():
    embeddings, labels = labelled()
    wanted = metrics.retrieval_map(embeddings, labels)
    scaled = embeddings * np.arange(1, 31)[:, None]
    names = [f"class {label}" for label in labels]
    assert metrics.retrieval_map(scaled, names) == pytest.approx(wanted)


def test_refuses_labels_that_do_not_fit():
    with pytest.raises(ValueError, match="each alone with its label"):
        metrics.retrieval_map(np.eye(3), [0, 1, 2])
    with pytest.raises(ValueError, match="one label per image"):
        metrics.recall_at(np.eye(3), [0, 0])
