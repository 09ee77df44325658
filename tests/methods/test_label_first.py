import copy
import dataclasses

import pytest
import torch
from method_pairs import ON_LOGITS, assembled, batch_of, given, total

from rankdistill import (
    DIST,
    KD,
    METHODS,
    RA,
    SP,
    Batch,
    CrossEntropy,
    EachView,
    LabelFirst,
    Output,
    Standardized,
    assemble,
    dist_loss,
    label_first,
)
from rankdistill.models.resnet import resnet8
from rankdistill.runs.build import terms
from rankdistill.runs.options import loss


def test_the_label_takes_the_largest_value_and_the_others_keep_their_order() -> None:
    logits, labels = torch.randn(20, 7), torch.randint(7, (20,))
    found = label_first(logits, labels)
    assert torch.equal(found.argmax(1), labels)
    assert torch.equal(found.sort(1).values, logits.sort(1).values)
    others = torch.arange(7) != labels[:, None]
    order = [x[others].view(20, 6).argsort(1) for x in (found, logits)]
    assert torch.equal(*order)


def test_a_teacher_that_is_right_stays_as_it_is() -> None:
    logits = torch.randn(20, 7)
    assert torch.equal(label_first(logits, logits.argmax(1)), logits)


def test_equal_logits_stay_equal_and_the_precision_too() -> None:
    logits = torch.tensor([[2.0, 2.0, 1.0, 1.0]], dtype=torch.bfloat16)
    found = label_first(logits, torch.tensor([3]))
    assert found.dtype == torch.bfloat16
    assert found.tolist() == [[2.0, 1.0, 1.0, 2.0]]


@pytest.mark.parametrize("name", ON_LOGITS)
def test_every_loss_on_logits_is_given_the_other_teacher(name: str) -> None:
    method, batch, student, teacher = given(name)
    inner = copy.deepcopy(method)
    changed = dataclasses.replace(
        teacher,
        logits=label_first(teacher.logits, batch.labels),
        strong=teacher.strong and Output(label_first(teacher.strong.logits, batch.labels)),
    )
    found = LabelFirst(method).losses(batch, student, teacher)
    torch.testing.assert_close(found, inner.losses(batch, student, changed), rtol=0, atol=0)
    assert total(found).isfinite()


@pytest.mark.parametrize("name", METHODS)
def test_the_option_is_offered_where_it_works(name: str) -> None:
    offered = "label_first" in {field.name for field in dataclasses.fields(loss(name))}
    assert offered == (name in ON_LOGITS)


def test_refuses_other_methods_and_labels_that_are_no_classes() -> None:
    for method in (SP("stage3", "stage3"), CrossEntropy()):
        with pytest.raises(ValueError, match=f"{type(method).__name__} cannot have a teacher with the label first"):
            LabelFirst(method)
    outputs = Output(torch.randn(4, 5)), Output(torch.randn(4, 5))
    with pytest.raises(ValueError, match=r"a teacher with the label first needs one class per sample"):
        LabelFirst(KD()).losses(Batch(torch.zeros(4, 1), torch.full((4, 5), 0.2)), *outputs)


def test_what_is_prepared_and_observed_is_the_methods() -> None:
    wrapped, plain = LabelFirst(RA(epsilon="auto")), RA(epsilon="auto")
    _, student, teacher = assembled("ra")
    batch = batch_of()
    assert wrapped.prepare(teacher, lambda: [batch]) == plain.prepare(teacher, lambda: [batch]) != []
    outputs = batch, student.run(batch), teacher.run(batch)
    assert wrapped.observes
    assert wrapped.observe(*outputs) == pytest.approx(plain.observe(*outputs))


def test_runs_put_it_between_standardising_and_the_second_view() -> None:
    losses = {
        "kd": loss("kd", standardized=True, label_first=True, each_view=True),
        "dist": loss("dist", 2.0, label_first=True),
    }
    built, _, _ = assemble(terms(losses), resnet8(5), resnet8(5), torch.zeros(2, 3, 8, 8), num_samples=10)
    kd, dist = (built.methods[name] for name in losses)
    assert [type(m) for m in (kd, kd.method, kd.method.method, kd.method.method.method)] == [
        EachView,
        LabelFirst,
        Standardized,
        KD,
    ]
    assert [type(m) for m in (dist, dist.method)] == [LabelFirst, DIST]
    student, teacher, labels = torch.randn(4, 5), torch.randn(4, 5), torch.arange(4)
    found = dist.losses(Batch(torch.zeros(4, 1), labels), Output(student), Output(teacher))
    torch.testing.assert_close(total(found), dist_loss(student, label_first(teacher, labels)))
