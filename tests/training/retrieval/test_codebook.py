import numpy as np
import pytest

from keras_attn.retrieval.asmk import nearest_words
from keras_attn.training.retrieval.codebook import learn_codebook


def test_words_are_the_means_of_the_descriptors_nearest_to_them():
    pytest.importorskip("faiss")
    descriptors = np.random.default_rng(0).normal(size=(300, 6))
    words = learn_codebook(descriptors, 5, iterations=100, seed=1)
    nearest = nearest_words(descriptors, words)[:, 0]
    means = [descriptors[nearest == word].mean(axis=0) for word in range(5)]
    np.testing.assert_allclose(words, means, atol=1e-4)
    again = learn_codebook(descriptors, 5, iterations=100, seed=1)
    np.testing.assert_array_equal(words, again)


def test_refuses_fewer_descriptors_than_words():
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match="shape \\(3, 6\\), words=4"):
        learn_codebook(np.zeros((3, 6)), 4)
