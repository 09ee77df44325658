"""Numbers of every method: two steps on networks that are filled by a rule, and where its numbers come from."""

from pathlib import Path

import pytest
import torch
from golden_steps import CASES, golden, numbers

from rankdistill import METHODS

FOLDER = Path(__file__).parents[1] / "golden"

WITHOUT_AUTHORS_NUMBERS = {
    "cald": "its paper has no public code; cald_reconstruction.npz has independent numbers",
    "rkkd": "its paper has no public code; rkkd_reconstruction.npz has independent numbers",
    "pld": "its code was not at hand; its tests sum the formula place by place",
    "rank": "a method of this project; its tests use SciPy's and NumPy's ranks and correlations",
    "ce": "cross-entropy is torch's own function",
    "centred_mse": "a baseline of this project, which equals ranking alignment in its linear regime",
    "normalized_ce": "a part of NORM's loss, held by NORM's numbers",
    "normalized_kd": "a part of NORM's loss, held by NORM's numbers",
}
"""Methods that have no file of the authors' numbers, in the repository or in `golden/README.md`, and why."""


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [key.removesuffix(".a") for key in golden() if key.endswith(".a")])
def test_two_steps(name: str, case: str) -> None:
    expected = torch.from_numpy(golden()[f"{name}.{case}"])
    if not len(expected):
        with pytest.raises((TypeError, ValueError)):
            numbers(name, case)
        return
    found = numbers(name, case)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9 * float(expected.abs().max()))


def test_every_method_has_numbers_or_says_why() -> None:
    page = (FOLDER / "README.md").read_text()
    for name in METHODS:
        own = any((FOLDER / folder / f"{name}.npz").is_file() for folder in ("", "feature"))
        assert own or f"{name}.a" in golden(), f"{name} has no golden numbers: add tests/golden/{name}.npz"
        told = own or f"`{name}`" in page or name in WITHOUT_AUTHORS_NUMBERS
        assert told, f"{name} has no numbers of its authors' code, and neither README nor this test says why"
