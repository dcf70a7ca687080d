import numpy as np
import pytest

from keras_attn.retrieval import asmk
from tests.reference import retrieval as reference

WORDS, DIMENSION = 11, 13


@pytest.fixture(scope="module")
def codebook():
    return np.random.default_rng(5).normal(size=(WORDS, DIMENSION))


def images(seed, count=4):
    generator = np.random.default_rng(seed)
    return [
        generator.normal(size=(generator.integers(5, 30), DIMENSION))
        for _ in range(count)
    ]


@pytest.mark.parametrize("nearest", [1, 3])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("power", "threshold"), [(3.0, 0.0), (1.5, 0.2)])
def test_similarity_equals_the_plain_version(
    codebook, nearest, weighted, power, threshold
):
    queries, database = images(0, 2), images(1)
    aggregated = [asmk.aggregate(x, codebook) for x in database]
    idf = asmk.inverse_document_frequency(aggregated, WORDS)
    weights = idf if weighted else np.ones(WORDS)
    found = asmk.asmk_similarity(
        [asmk.aggregate(x, codebook, nearest) for x in queries],
        aggregated,
        power,
        threshold,
        idf if weighted else None,
    )
    wanted = [
        [
            reference.asmk(q, x, codebook, power, threshold, weights, (nearest, 1))
            for x in database
        ]
        for q in queries
    ]
    assert np.max(wanted) > 0
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_an_inverted_file_is_the_database_it_is_made_of(codebook):
    queries, database = (
        [asmk.aggregate(x, codebook) for x in images(seed, 3)] for seed in (0, 1)
    )
    entries = [
        (number, word, signs)
        for number, image in enumerate(database)
        for word, signs in zip(image.words, image.signs, strict=True)
    ]
    # In any order.
    shuffled = np.random.default_rng(0).permutation(len(entries))
    columns = zip(*(entries[number] for number in shuffled), strict=True)
    file = asmk.InvertedFile(*map(np.array, columns), len(database), DIMENSION)
    idf = asmk.inverse_document_frequency(database, WORDS)
    for weights in (None, idf):
        np.testing.assert_allclose(
            asmk.asmk_similarity(queries, file, idf=weights),
            asmk.asmk_similarity(queries, database, idf=weights),
            atol=1e-12,
        )


def test_an_image_is_similar_to_itself_by_one(codebook):
    aggregated = [asmk.aggregate(x, codebook) for x in images(2)]
    found = asmk.asmk_similarity(aggregated, aggregated)
    np.testing.assert_allclose(np.diag(found), 1)
    np.testing.assert_allclose(found, found.T)
    assert np.all(found[~np.eye(4, dtype=bool)] < 1)


def test_signs_by_hand():
    codebook = np.array([[0.0, 0.0, 0.0], [10.0, 0.0, 0.0]])
    first = asmk.aggregate([[1.0, -1.0, 2.0], [-3.0, 0.5, 2.0]], codebook)
    assert first.words.tolist() == [0]
    # Sums (-2, -0.5, 4).
    assert np.unpackbits(first.signs, axis=1, count=3).tolist() == [[0, 0, 1]]
    second = asmk.aggregate([[-1.0, -1.0, -1.0], [9.0, 0.0, 0.0]], codebook)
    # One of three signs differs in the one word of two that they share.
    found = asmk.asmk_similarity([first], [second])
    np.testing.assert_allclose(found, (1 - 2 / 3) ** 3 / np.sqrt(2))


def test_nearest_words_equal_all_distances(codebook, monkeypatch):
    monkeypatch.setattr(asmk, "BLOCK", 3 * WORDS)
    (descriptors,) = images(3, 1)
    distances = np.linalg.norm(descriptors[:, None] - codebook, axis=-1)
    wanted = distances.argsort(axis=1)
    for count in (1, 4):
        found = asmk.nearest_words(descriptors, codebook, count)
        np.testing.assert_array_equal(found, wanted[:, :count])


def test_idf_by_hand(codebook):
    aggregated = [asmk.aggregate(codebook[words], codebook) for words in ([0, 1], [1])]
    idf = asmk.inverse_document_frequency(aggregated, WORDS)
    np.testing.assert_allclose(idf, [np.log(2), *[0] * 10])


def test_images_without_descriptors_are_similar_to_none(codebook):
    empty = asmk.aggregate(np.zeros((0, DIMENSION)), codebook)
    other = asmk.aggregate(images(0, 1)[0], codebook)
    found = asmk.asmk_similarity([empty, other], [other, empty])
    np.testing.assert_allclose(found, [[0, 0], [1, 0]])
    assert asmk.asmk_similarity([other], []).shape == (1, 0)


def test_refuses_what_does_not_fit(codebook):
    other = asmk.aggregate(np.ones((2, 3)), np.ones((1, 3)))
    image = asmk.aggregate(codebook, codebook)
    with pytest.raises(ValueError, match="one codebook.*\\[3, 13\\]"):
        asmk.asmk_similarity([image], [other])
    with pytest.raises(ValueError, match="threshold=-1"):
        asmk.asmk_similarity([image], [image], threshold=-1)
    with pytest.raises(ValueError, match="of one dimension"):
        asmk.aggregate(np.ones((2, 3)), codebook)
    with pytest.raises(ValueError, match="from 1 to 11.*count=12"):
        asmk.nearest_words(codebook, codebook, 12)
