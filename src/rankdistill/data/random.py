"""Randomness that is a function, not a state: every draw depends on (seed, epoch, index, stream) and nothing else.

Philox4x32-10, the counter-based generator of Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC 2011), in
integer tensor operations. The seed is its key; index, epoch, stream and block number are its counter. So the same
sample gets the same draws in any batch, on any device, and after any interruption.
"""

from __future__ import annotations

from enum import IntEnum

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

_MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_ROUNDS = 10
_WORD = 0xFFFFFFFF


class Stream(IntEnum):
    """What draws are for: one stream per purpose, so that no two purposes share numbers.

    The values are part of every run's identity: new purposes get new numbers, and none is ever reused.
    """

    ORDER = 0
    WEAK_VIEW = 1
    HOLD_OUT = 2
    FEW_LABELS = 3
    STRONG_VIEW = 4
    OPERATIONS = 5
    HELD_OUT_ORDER = 6
    HELD_OUT_VIEW = 7
    USER_TRANSFORM = 8


def draws(
    seed: int, epoch: int, indices: Int64[Tensor, " batch"], *, stream: Stream, count: int
) -> Int64[Tensor, "batch count"]:
    """Return `count` independent integers, uniform in [0, 2^32), for each index, on the device of `indices`.

    Args:
        seed: in [0, 2^64).
        epoch: in [0, 2^32).
        indices: positions of samples, each in [0, 2^32).
        stream: what the draws are for.
        count: how many per index. Asking for more does not change the first ones.

    Raises:
        ValueError: seed or epoch is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed is {seed}: it must be at least 0 and less than 2^64")
    if not 0 <= epoch < 2**32:
        raise ValueError(f"epoch is {epoch}: it must be at least 0 and less than 2^32")
    grid = torch.zeros(len(indices), -(-count // 4), dtype=torch.int64, device=indices.device)  # [B, blocks]
    block = torch.arange(grid.shape[1], device=indices.device)
    counter = grid + indices[:, None], grid + epoch, grid + int(stream), grid + block
    words = _philox(*counter, key=(seed & _WORD, seed >> 32))
    return torch.stack(words, dim=2).flatten(1)[:, :count]


def integers(words: Int64[Tensor, "*shape"], high: int) -> Int64[Tensor, "*shape"]:
    """Return uniform draws from [0, 2^32) as integers in [0, high), for 1 <= high <= 2^31.

    Multiply-shift: no two values differ in probability by more than 2^-32, which no experiment of ours can see.

    Raises:
        ValueError: high is out of range.
    """
    if not 1 <= high <= 2**31:
        raise ValueError(f"high is {high}: it must be at least 1 and at most 2^31")
    return (words * high) >> 32


def uniform(words: Int64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
    """Return uniform draws from [0, 2^32) as numbers between 0 and 1, never 0 or 1: the middles of 2^32 equal parts."""
    return (words.double() + 0.5) * 2.0**-32


def permutation(
    seed: int, epoch: int, size: int, *, stream: Stream = Stream.ORDER, device: torch.device | str = "cpu"
) -> Int64[Tensor, " size"]:
    """Return 0 .. size - 1 in random order: by default the order of the samples in an epoch."""
    words = draws(seed, epoch, torch.arange(size, device=device), stream=stream, count=2)
    return ((words[:, 0] << 31) | (words[:, 1] >> 1)).argsort(stable=True)  # by 63 bits, so ties do not happen


def _philox(a: Tensor, b: Tensor, c: Tensor, d: Tensor, *, key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Return the four words that Philox4x32-10 makes of the counter (a, b, c, d)."""
    for step in range(_ROUNDS):
        first, second = ((word + step * by) & _WORD for word, by in zip(key, _KEY_STEPS, strict=True))
        # int64 products wrap modulo 2^64; shift and mask read their high words whatever the sign.
        left, right = a * _MULTIPLIERS[0], c * _MULTIPLIERS[1]
        a, b, c, d = (
            ((right >> 32) & _WORD) ^ b ^ first,
            right & _WORD,
            ((left >> 32) & _WORD) ^ d ^ second,
            left & _WORD,
        )
    return a, b, c, d
