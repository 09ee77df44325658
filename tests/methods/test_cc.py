import pytest
import torch
from feature_golden import BATCH, DTYPES, check_gradient, check_parameters, features, golden, load, relative_error
from loss_properties import half_precision

from rankdistill import CC, Output, cc_loss

TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-5}
NAMES = {"weight": "linear.weight", "bias": "linear.bias"}


@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_the_authors_loss_and_gradient(dtype: torch.dtype) -> None:
    (student,), (teacher,) = features(dtype, "pooled")
    method = CC(256, 256).to(dtype)
    embeddings = {"embed_s": method.embed_student, "embed_t": method.embed_teacher}
    for role, embedding in embeddings.items():
        load(embedding, "cc", role, NAMES)
    outputs = [Output(torch.zeros(4, 5), {"pooled": feature}) for feature in (student, teacher)]
    loss = method.losses(BATCH, *outputs)["cc"]
    assert relative_error(loss, golden("cc", "a.out64.loss")) < TOLERANCE[dtype]
    loss.backward()
    check_gradient("cc", "s_pooled", student, TOLERANCE[dtype])
    for role, embedding in embeddings.items():
        named = {f"linear.{name}": parameter for name, parameter in embedding.named_parameters()}
        check_parameters("cc", role, named, TOLERANCE[dtype])


def test_gradcheck_of_both_embeddings() -> None:
    embeddings = torch.randn(2, 4, 3, dtype=torch.float64).requires_grad_().unbind()
    assert torch.autograd.gradcheck(cc_loss, embeddings)


def test_it_pairs_neighbours_in_the_batch() -> None:
    student = torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.0, 3.0]])
    assert cc_loss(student, torch.zeros(3, 2)) == (2 + 3) / 2
    assert cc_loss(student[[1, 0, 2]], torch.zeros(3, 2)) == (2 + 0) / 2


def test_zero_where_the_embeddings_are_equal_and_for_one_sample() -> None:
    embedding = torch.randn(5, 4)
    assert cc_loss(embedding, embedding) == 0
    assert cc_loss(embedding[:1], torch.zeros(1, 4)) == 0


def test_pooled_maps_are_flattened() -> None:
    method = CC(6, 4, dim=3)
    pooled = torch.randn(2, 6), torch.randn(2, 4)
    flat = method.losses(BATCH, *(Output(torch.zeros(2, 5), {"pooled": x}) for x in pooled))
    maps = method.losses(BATCH, *(Output(torch.zeros(2, 5), {"pooled": x[..., None, None]}) for x in pooled))
    assert torch.equal(flat["cc"], maps["cc"])


def test_refuses_a_dimension() -> None:
    with pytest.raises(ValueError, match="dim is 0: it must be at least 1"):
        CC(4, 4, dim=0)


def test_half_precision_is_computed_in_float32() -> None:
    half_precision(cc_loss, (4, 6))
