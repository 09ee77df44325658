"""The loop: one step, one epoch, evaluation, a whole run with its checkpoints.

Order of samples, augmentation and the draws of methods are functions of seeds, epoch, step and sample index, so a
run that was killed at any step and is started again ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from datetime import datetime

import torch
from torch import nn

from .. import distributed
from ..contract import Batch
from ..data.schedule import Batches
from ..network import Teacher
from ..weights.durable import write_with_digest
from ..weights.storage import digest_of, save_weights
from .evaluate import evaluate
from .lock import holding
from .plan import Plan, Record
from .signals import Interrupted, Stop, listening
from .state import NonFiniteLoss, OutOfMemory, State

STEEP = 25.0
"""Norms of first gradients from which clipping is proposed: cross-entropy has about 2, KD 3, RA 13, correlations 50."""


def fit(plan: Plan) -> Record:
    """Train to the end, from the newest checkpoint if there is one; save the deployed student; return the result.

    The result has the last epoch's metrics ("last", the headline), the best epoch's ("best") and the seconds that
    training took, over all starts.

    Raises:
        Refused: another run is under way in the folder, or its checkpoints cannot be used.
        NonFiniteLoss, OutOfMemory: after saving. Interrupted: a signal came, after saving.
        WriteError: a file cannot be written. RuntimeError: the teacher changed.
    """
    with holding(plan.folder):
        if plan.again:
            distributed.on_first(plan.clear)
        return _fit(plan)


def _fit(plan: Plan) -> Record:
    state = plan.resumed().state
    plan.start()
    teacher = _teacher_facts(plan)
    digest = digest_of(state.teacher.module.state_dict()) if state.teacher is not None else ""
    if state.step == 0:
        with state.autocast():
            advice = state.method.prepare(state.teacher and state.teacher.uncached, lambda: _first_images(plan.loader))
        distributed.broadcast_state(state.method)  # each process has seen other images
        for sentence in advice:
            plan.note(sentence)
    with listening() as stop:
        for epoch in range(state.epoch + 1, plan.epochs + 1):
            record = _one_epoch(plan, epoch, stop) | teacher
            _finish_epoch(plan, record)
    if state.teacher is not None and digest_of(state.teacher.module.state_dict()) != digest:
        raise RuntimeError("the teacher's weights or buffers changed during training: a method wrote to them")
    return _result(plan)


def train_epoch(plan: Plan, epoch: int, stop: Stop | None = None) -> dict[str, float]:
    """Train for one epoch, or the rest of it; return the mean over samples of each loss, as the method names them."""
    state = plan.state
    state.student.module.train()
    state.method.train()
    steps = len(plan.loader)
    first = state.step - (epoch - 1) * steps
    if first == 0:
        state.sums, state.count, state.seconds = {}, 0, 0.0
    if state.teacher is not None:
        state.teacher.start_epoch(epoch, first=first)
    batches = iter(plan.loader.epoch(epoch, first=first)) if first < steps else iter(())
    before, began = state.seconds, time.perf_counter()
    while True:
        with state.clock("data"):
            batch = next(batches, None)
        if batch is None:
            break
        torch.manual_seed(_step_seed(plan.seed, batch.step, distributed.rank()))
        _step(plan, batch)
        if state.step == epoch * steps:
            state.measure_gradients()
        state.seconds = before + time.perf_counter() - began
        for watcher in plan.watchers:
            watcher.step(len(batch))
        code = stop.asked() if stop is not None else 0
        if code or (plan.checkpoint_steps and state.step % plan.checkpoint_steps == 0 and state.step < epoch * steps):
            plan.save()
        if code:
            raise Interrupted(code, f"told to stop: saved after step {state.step}; the same command goes on from there")
    if state.teacher is not None:
        state.teacher.end_epoch()
    return _means(plan, epoch)


def _step(plan: Plan, batch: Batch) -> None:
    state = plan.state
    try:
        with state.clock("student"):
            losses = plan.update(state, batch)
            if state.average is not None:
                state.average.update_parameters(state.student.module)
    except NonFiniteLoss as error:
        raise NonFiniteLoss(f"{error}: lower the learning rate or the loss's weight; {_rescued(plan)}") from error
    except RuntimeError as error:  # torch has one class for CUDA's, and none for the host's
        if not isinstance(error, torch.OutOfMemoryError) and "not enough memory" not in str(error):
            raise
        shape = " x ".join(map(str, batch.images.shape))
        raise OutOfMemory(
            f"a step on a batch of {shape} does not fit in memory: lower optim.batch_size, or raise optim.accumulate, "
            f"which runs it in parts; {_rescued(plan)}"
        ) from error
    for name, value in losses.items():
        state.sums[name] = state.sums.get(name, 0) + value.detach() * len(batch)
    state.count += len(batch)
    state.step = batch.step + 1


def _one_epoch(plan: Plan, epoch: int, stop: Stop) -> Record:
    state = plan.state
    rate = plan.learning_rate(epoch)
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    state.clock.take()  # what was before: advice, evaluation
    losses = train_epoch(plan, epoch, stop)
    phases = _phases(state)
    record: Record = {"epoch": epoch, "step": state.step, "lr": rate, "loss": losses}
    if state.gradient_norm is not None:
        record["gradient_norm"] = state.gradient_norm
    record["weight_norm"] = nn.utils.get_total_norm(list(state.student.module.parameters())).item()
    if epoch == 1:
        record |= _start(plan)
    if state.method.observes and state.teacher is not None:
        record["observed"] = _observed(plan, state.teacher, epoch)
    if epoch % plan.evaluate_every == 0 or epoch == plan.epochs:
        distributed.broadcast_buffers(state.student.module)
        record |= evaluate(state.trained(), plan.test(), state.autocast)
    images = plan.loader.num_samples
    return record | {"seconds": state.seconds, "images_per_second": images / state.seconds, "time": phases}


def _start(plan: Plan) -> Record:
    """Return the largest norm of the gradients of the first steps; say so if it is far beyond what networks take."""
    state = plan.state
    if state.first_norms is None:  # an update rule of its own
        return {}
    largest = state.first_norms.max().item()
    if largest > STEEP and state.clip_norm is None:
        plan.note(
            f"gradients of the first steps had norms up to {largest:.3g}, and weights that such steps inflate learn "
            f"slowly for the rest of a run: --optim.clip-norm 5 starts it gently (told from {STEEP:g})"
        )
    return {"first_gradient_norm": largest}


def _finish_epoch(plan: Plan, record: Record) -> None:
    """Write the record, then the checkpoint that counts the epoch as done."""
    plan.records.append(record)
    distributed.on_first(plan.write_metrics)
    plan.state.epoch = record["epoch"]
    if record["epoch"] % plan.checkpoint_every == 0 or record["epoch"] == plan.epochs:
        plan.save()
    for watcher in plan.watchers:
        watcher.epoch(record)


def _means(plan: Plan, epoch: int) -> dict[str, float]:
    """The epoch's only wait for the device."""
    state = plan.state
    device = next(state.student.module.parameters()).device
    dtype = torch.float32 if device.type == "mps" else torch.float64
    sums = [value.to(dtype) for value in state.sums.values()]
    count = torch.tensor(float(state.count), device=device, dtype=dtype)
    *totals, samples = distributed.total(torch.stack([*sums, count])).tolist()
    means = {name: value / samples for name, value in zip(state.sums, totals, strict=True)}
    bad = [name for name, mean in means.items() if not math.isfinite(mean)]
    if bad:
        raise NonFiniteLoss(
            f"the loss {', '.join(bad)} is not finite in epoch {epoch}: lower the learning rate or the loss's weight; "
            f"the last checkpoint from before is in {plan.folder}"
        )
    return means


def _phases(state: State) -> dict[str, float]:
    """Return the epoch's seconds in data, teacher, student (with its losses and the backward pass) and update."""
    found = state.clock.take()
    return {phase: found.get(phase, 0.0) for phase in ("data", "teacher", "student", "update")}


@torch.no_grad()
def _observed(plan: Plan, teacher: Teacher, epoch: int) -> dict[str, float]:
    """What the method sees in the epoch's first batch, now, with the student in eval mode."""
    state = plan.state
    state.student.module.eval()
    batch = next(iter(plan.loader.epoch(epoch)))
    with state.autocast():
        return state.method.observe(batch, state.student.run(batch), teacher.run(batch))


def _teacher_facts(plan: Plan) -> Record:
    """Return the teacher's accuracy, to stand beside the student's."""
    teacher = plan.state.teacher
    if teacher is None or not plan.evaluate_teacher:
        return {}
    top1 = evaluate(teacher.module, plan.test(), plan.state.autocast)["top1"]
    classes = len(plan.header.get("class_names", ()))
    chance = 100.0 / classes if classes else 0.0
    if top1 < min(2.0 * chance, 50.0 + chance / 2.0):
        plan.note(
            f"WARNING: the teacher's top-1 is {top1:.2f} % where guessing gives {chance:.2f} %: its weights are hardly "
            "those of these classes, this image size or this normalisation"
        )
    return {"teacher_top1": top1}


def _result(plan: Plan) -> Record:
    evaluated = [record for record in plan.records if "top1" in record]
    result = {
        "last": evaluated[-1],
        "best": max(evaluated, key=lambda record: record["top1"]),
        "seconds": sum(record["seconds"] for record in plan.records),
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    distributed.on_first(lambda: _write_result(plan, result))
    return result


def _write_result(plan: Plan, result: Record) -> None:
    student = plan.state.trained()
    about = plan.header | {"top1": result["last"]["top1"]}
    if hasattr(student, "deployed_as"):  # not the plain network: `evaluate` rebuilds it
        about["deployed"] = student.deployed_as
    save_weights(plan.weights, student.state_dict(), about)
    write_with_digest(plan.result, (json.dumps(result, indent=2) + "\n").encode())


def _first_images(loader: Batches, num: int = 1024) -> Iterator[Batch]:
    """The first batches of the first epoch, up to the batch that reaches `num` images."""
    for batch in loader.epoch(1):
        yield batch
        num -= len(batch)
        if num <= 0:
            return


def _step_seed(seed: int, step: int, rank: int = 0) -> int:
    return (seed * 0x9E3779B97F4A7C15 + rank * 0xD1342543DE82EF95 + step) % 2**63


def _rescued(plan: Plan) -> str:
    """Save the run as it was before the step that failed, and say so."""
    if distributed.world_size() > 1:  # the others are in the middle of the step, and cannot take part
        return f"the last checkpoint is in {plan.folder}"
    plan.save()
    return f"the run is saved as it was before that step, in {plan.folder}"
