import pytest
import torch

from rankdistill.data.random import Stream, draws, integers, permutation, uniform


def of_one_key(seed: int, epoch: int, index: int, stream: int, count: int) -> list[int]:
    """Philox4x32-10 in Python integers, after the paper."""
    found: list[int] = []
    for block in range(-(-count // 4)):
        words, key = [index, epoch, stream, block], [seed % 2**32, seed >> 32]
        for _ in range(10):
            high_0, low_0 = divmod(words[0] * 0xD2511F53, 2**32)
            high_1, low_1 = divmod(words[2] * 0xCD9E8D57, 2**32)
            words = [high_1 ^ words[1] ^ key[0], low_1, high_0 ^ words[3] ^ key[1], low_0]
            key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
        found += words
    return found[:count]


def test_python_philox_gives_the_published_answers() -> None:
    # kat_vectors of Random123, philox4x32 with 10 rounds; those whose last counter word is 0 can be asked for.
    assert of_one_key(0, 0, 0, 0, 4) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize(
    ("seed", "epoch", "index", "stream"),
    [(0, 0, 0, 0), (0x299F31D0A4093822, 0x85A308D3, 0x243F6A88, 3), (2**64 - 1, 2**32 - 1, 2**32 - 1, 1)],
)
def test_draws_equal_philox(seed: int, epoch: int, index: int, stream: int) -> None:
    found = draws(seed, epoch, torch.tensor([index]), stream=Stream(stream), count=10)
    assert found.tolist() == [of_one_key(seed, epoch, index, stream, 10)]


def test_values_are_pinned() -> None:
    assert draws(0, 0, torch.tensor([0]), stream=Stream.ORDER, count=4).tolist() == [
        [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    ]
    assert permutation(0, 1, 10).tolist() == [9, 2, 8, 7, 6, 0, 1, 3, 5, 4]
    assert [(stream.name, stream.value) for stream in Stream] == [
        ("ORDER", 0),
        ("WEAK_VIEW", 1),
        ("HOLD_OUT", 2),
        ("FEW_LABELS", 3),
        ("STRONG_VIEW", 4),
        ("OPERATIONS", 5),
        ("HELD_OUT_ORDER", 6),
        ("HELD_OUT_VIEW", 7),
        ("USER_TRANSFORM", 8),
    ]


def test_a_sample_gets_its_draws_in_any_batch() -> None:
    whole = draws(5, 2, torch.arange(100), stream=Stream.WEAK_VIEW, count=3)
    chosen = torch.tensor([93, 4, 4, 50])
    assert torch.equal(draws(5, 2, chosen, stream=Stream.WEAK_VIEW, count=3), whole[chosen])
    assert torch.equal(draws(5, 2, torch.arange(100), stream=Stream.WEAK_VIEW, count=9)[:, :3], whole)
    assert draws(5, 2, torch.arange(0), stream=Stream.WEAK_VIEW, count=3).shape == (0, 3)


def test_every_argument_changes_the_draws() -> None:
    indices = torch.arange(50)
    variants = [
        draws(seed, epoch, indices, stream=stream, count=2)
        for seed in (0, 1, 2**32)
        for epoch in (1, 2)
        for stream in Stream
    ]
    words = torch.cat([variant.flatten() for variant in variants])
    assert len(words.unique()) == len(words)  # 5,400 of 2^32: a repetition has probability 0.003


def test_draws_are_uniform_and_uncorrelated() -> None:
    words = torch.cat([draws(seed, 1, torch.arange(20_000), stream=Stream.WEAK_VIEW, count=5) for seed in range(5)])
    for column in words.unbind(1):
        counts = integers(column, 64).bincount(minlength=64).double()
        expected = len(column) / 64
        chi_square = ((counts - expected) ** 2 / expected).sum().item()
        assert 63 - 6 * 11.2 < chi_square < 63 + 6 * 11.2  # mean and 6 standard deviations of chi-square with 63
    correlation = torch.corrcoef(words.double().T) - torch.eye(5, dtype=torch.float64)
    assert correlation.abs().max() < 6 / len(words) ** 0.5


@pytest.mark.parametrize("high", [1, 2, 3, 9, 1000])
def test_integers_cover_their_range_evenly(high: int) -> None:
    words = draws(0, 1, torch.arange(100_000), stream=Stream.WEAK_VIEW, count=1)
    counts = integers(words, high).flatten().bincount().double()
    expected = 100_000 / high
    assert len(counts) == high
    assert (counts - expected).abs().max() < 6 * expected**0.5


def test_integers_at_the_ends() -> None:
    assert integers(torch.tensor([0, 2**32 - 1]), 2**31).tolist() == [0, 2**31 - 1]
    for high in (0, 2**31 + 1):
        with pytest.raises(ValueError, match=f"high is {high}"):
            integers(torch.tensor([0]), high)


def test_uniform_is_open_at_both_ends() -> None:
    ends = uniform(torch.tensor([0, 2**32 - 1]))
    assert ends.tolist() == [2.0**-33, 1 - 2.0**-33]
    assert ends.dtype == torch.float64


def test_permutation_holds_each_once_and_moves_all_alike() -> None:
    orders = torch.stack([permutation(3, epoch, 50) for epoch in range(2000)])
    assert torch.equal(orders.sort(dim=1).values, torch.arange(50).expand(2000, 50))
    mean_place = orders.argsort(dim=1).double().mean(dim=0)
    assert (mean_place - 24.5).abs().max() < 6 * 14.4 / 2000**0.5
    assert permutation(3, 1, 1).tolist() == [0]
    assert not torch.equal(permutation(3, 1, 50), permutation(3, 1, 50, stream=Stream.HOLD_OUT))


def test_ranges_are_checked() -> None:
    for seed in (-1, 2**64):
        with pytest.raises(ValueError, match=f"seed is {seed}"):
            draws(seed, 1, torch.arange(2), stream=Stream.ORDER, count=1)
    for epoch in (-1, 2**32):
        with pytest.raises(ValueError, match=f"epoch is {epoch}"):
            draws(0, epoch, torch.arange(2), stream=Stream.ORDER, count=1)
