"""The plain rule's optimizer is torch's."""

from __future__ import annotations

import torch
from torch import nn

from rankdistill import CrossEntropy, Descend


def test_a_parameter_may_get_its_first_gradient_in_a_later_step() -> None:
    """As FCFD's bridges do, which a step uses or not."""
    student = nn.ParameterList([torch.randn(3, 2), torch.randn(4)])
    plain = [nn.Parameter(parameter.detach().clone()) for parameter in student]
    options = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01, "nesterov": True}
    ours = Descend().make_optimizer(student, CrossEntropy(), **options)
    theirs = torch.optim.SGD(plain, foreach=False, **options)
    for used in ((0,), (0, 1), (1,), (0, 1)):
        for optimizer, parameters in ((ours, list(student)), (theirs, plain)):
            optimizer.zero_grad()
            sum(parameters[i].square().sum() for i in used).backward()
            optimizer.step()
        torch.testing.assert_close(list(student), plain)
