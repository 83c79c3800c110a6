"""Codec: bytes against the entropy of positions and a general compressor, and speed, on ResNet-18's tensors.

Run: ``pytest benchmarks/bench_codec.py``. Ratios are in `extra_info`; names say what they are ratios of.
"""

import zlib

import numpy as np
import pytest

from joulewise.benchdata import resnet18
from joulewise.codec import VALUE_TYPES, decode, encode, encode_detailed
from joulewise.rounding import further_bits
from joulewise.select import Selection

try:
    import zstandard
except ImportError:  # zlib is close enough to see a regression
    zstandard = None

DENSITIES = [0.001, 0.01, 0.05, 0.1, 0.2]
SEED = 0


LAYOUT = resnet18()


def top(density):
    """The largest of a heavy-tailed update whose scale differs from tensor to tensor."""
    rng = np.random.default_rng(SEED)
    scale = 10 ** rng.uniform(-4, -3.3, len(LAYOUT.tensors))
    update = (rng.standard_t(5, LAYOUT.n) * np.repeat(scale, LAYOUT.sizes)).astype(np.float32)
    count = int(density * LAYOUT.n)
    indices = np.sort(np.argpartition(-abs(update), count)[:count]).astype(np.uint32)
    return Selection(LAYOUT.n, indices, update[indices])


def entropy_bytes(selection):
    """``sum_g n_g H(k_g / n_g) / 8``."""
    share = LAYOUT.counts(selection.indices) / LAYOUT.sizes
    inner = (share > 0) & (share < 1)
    p, sizes = share[inner], LAYOUT.sizes[inner]
    return float(-(sizes * (p * np.log2(p) + (1 - p) * np.log2(1 - p))).sum() / 8)


def usual_bytes(selection):
    """Gaps as variable-length integers and float32 values, through zstd level 3 (zlib if that is missing)."""
    gaps = np.diff(selection.indices.astype(np.int64), prepend=-1) - 1
    parts = [(gaps >> 7 * place) & 127 | 128 * (gaps >> 7 * (place + 1) > 0) for place in range(4)]
    used = np.stack([gaps >= 0, *(gaps >> 7 * place > 0 for place in (1, 2, 3))], axis=1)
    plain = np.stack(parts, axis=1)[used].astype(np.uint8).tobytes() + selection.values.tobytes()
    return len(zlib.compress(plain) if zstandard is None else zstandard.ZstdCompressor(level=3).compress(plain))


@pytest.fixture(scope="module", params=DENSITIES, ids=lambda density: f"{density:.1%}")
def selection(request):
    return top(request.param)


def index_bytes(selection):
    """What positions take: everything but header and values."""
    sizes = encode_detailed(selection, LAYOUT, "int8")
    without = Selection(LAYOUT.n, selection.indices, np.ones_like(selection.values))
    # Equal values have one symbol, of no bits: besides their further bits only positions and table are left.
    alone = encode_detailed(without, LAYOUT, "int8").tensor_bits.sum()
    assert sizes.tensor_bits.sum() >= alone
    return (alone - further_bits("int8") * len(selection.indices)) / 8


@pytest.mark.parametrize("kind", VALUE_TYPES)
def test_encode(benchmark, selection, kind):
    payload = benchmark.pedantic(encode, (selection, LAYOUT, kind), rounds=5, warmup_rounds=1)
    count = len(selection.indices)
    benchmark.extra_info["bits_per_kept_value"] = 8 * len(payload) / count
    benchmark.extra_info["million_indices_per_s"] = count / benchmark.stats.stats.median / 1e6
    benchmark.extra_info["index_bytes_by_entropy_bound"] = index_bytes(selection) / entropy_bytes(selection)
    if kind == "float32":
        name = "payload_by_zlib" if zstandard is None else "payload_by_zstd3"
        benchmark.extra_info[name] = len(payload) / usual_bytes(selection)


@pytest.mark.parametrize("kind", VALUE_TYPES)
def test_decode(benchmark, selection, kind):
    payload = encode(selection, LAYOUT, kind)
    decoded = benchmark.pedantic(decode, (payload, LAYOUT), rounds=5, warmup_rounds=1)
    assert np.array_equal(decoded.selection.indices, selection.indices)
    benchmark.extra_info["million_indices_per_s"] = len(selection.indices) / benchmark.stats.stats.median / 1e6
