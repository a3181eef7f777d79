"""A start that is learned from many small tasks, from which a few steps lead far on the next one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .episodic.directions import Method, refused
from .episodic.files import check_folder
from .episodic.inner import copies, head_of
from .episodic.learned import LearnedStart
from .episodic.learning import Learning, Progress
from .episodic.objective import Objective, Tensors
from .episodic.scoring import EpisodeScores, Scorer
from .episodic.settings import Settings, check_count, check_rate, checked
from .episodic.state import State
from .episodic.stream import Stream
from .errors import USER_ERRORS, AutoInitError, ModelError
from .seeds import check_seed
from .task.assign import lasting_buffers
from .task.checks import check_trainable, check_weights, unwrap
from .task.evaluation import uncompiled
from .task.machine import OUT_OF_MEMORY
from .task.snapshot import Traces, preserved
from .version import __version__


def meta_learn(
    model: nn.Module,
    tasks: Any,
    *,
    method: Literal["reptile", "fomaml", "maml", "anil"] = "reptile",
    inner_steps: int = 5,
    inner_lr: float = 0.01,
    outer_lr: float | None = None,
    rounds: int = 1000,
    meta_batch: int = 4,
    head: str | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    seed: int = 0,
    state: str | os.PathLike[str] | None = None,
    every: int = 100,
) -> LearnedStart:
    """Returns a start that was learned from many small tasks, from which a few steps lead far on the next one.

    Where you will meet many tasks of one kind with few rows each (other users, sensors, classes), a start can be
    learned for that: in each round a few tasks are adapted to by plain gradient descent, and the start moves to where
    that would have come out better. "maml" differentiates through the adaptation (Finn et al. 2017), "fomaml" leaves
    the second derivatives out, "anil" adapts the head alone (Raghu et al. 2020), and "reptile" moves towards the
    adapted weights (Nichol et al. 2018). docs/learned_starts.md has what was measured.

    The model is used in the mode that it is in: layers in training mode normalize by their batch and drop out, in the
    query too. Frozen parameters (`requires_grad=False`) never move, and shared weights stay shared. An episode's
    changes of buffers end with it; the start's own statistics follow its passes before adaptation. The model itself is
    left as it was: `apply_` of what is returned sets the start.

    Args:
        model: The start begins at the weights of this module.
        tasks: The episodes: an iterable of ((inputs, targets), (inputs, targets)), the rows to adapt to and those to be
            judged on, or a callable that returns one. A list begins anew at its end. `episodes` makes them from
            labelled rows.
        method: This names the way: "reptile", "fomaml", "maml" or "anil".
        inner_steps: So many steps of plain gradient descent are taken on each task.
        inner_lr: This is the rate of those steps.
        outer_lr: This is Adam's rate for the start; with "reptile" it is the share of the way, up to 1. None means the
            method's own.
        rounds: The start moves so many times.
        meta_batch: So many tasks are adapted to in each round.
        head: With "anil" this is the path of the part that adapts. None means the linear layer that a pass comes to
            last.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        seed: This whole number decides what is random: dropout, Reptile's minibatches, and what a sampler of tasks
            draws from the global generators.
        state: The state is written to this path every so many rounds, and a later call with the same arguments, or
            with more rounds, goes on from there to the very bits of a run that was not interrupted. None means that
            nothing is kept.
        every: The state is written after so many rounds.

    Returns:
        A `LearnedStart`. Print it; `apply_(model)` sets it, `save(path)` keeps it.

    Raises:
        ArgumentError: A rate, a number, the method, the head or the path is none that is allowed, or the rates are so
            large that the loss is no longer finite.
        DataError: Tasks are empty or end too early, an episode has no query or one class only, holds NaN or labels out
            of range, or the model cannot take it.
        ModelError: Nothing of the model is trainable, its weights are not finite, or "maml" and "anil" cannot
            differentiate its gradients.
        SourceError: The file at `state` is damaged, or of another model, method or setting.
        StepError: The loss cannot be called, or returns no scalar. After any error, and after Ctrl-C, the model is as
            it was.

    Reference:
        Finn, Abbeel & Levine 2017, arXiv:1703.03400; Nichol, Achiam & Schulman 2018, arXiv:1803.02999; Raghu et al.
        2020, arXiv:1909.09157.

    Example:
        >>> import autoinit, torch
        >>> from torch import nn
        >>> def waves():
        ...     while True:
        ...         phase, x = 3 * torch.rand(1), 10 * torch.rand(2, 10, 1) - 5
        ...         yield (x[0], torch.sin(x[0] + phase)), (x[1], torch.sin(x[1] + phase))
        >>> model = nn.Sequential(nn.Linear(1, 20), nn.ReLU(), nn.Linear(20, 1))
        >>> learned = autoinit.meta_learn(model, waves, method="fomaml", rounds=5)
        >>> learned.apply_(model)
        >>> learned.method, learned.episodes
        ('fomaml', 20)
    """
    settings = checked(
        method,
        inner_steps=inner_steps,
        inner_lr=inner_lr,
        outer_lr=outer_lr,
        meta_batch=meta_batch,
        seed=seed,
        head=head,
    )
    check_count("rounds", rounds)
    check_count("every", every)
    path = None if state is None else check_folder(state, "state")
    inner, objective = _checked(model), Objective(unwrap(model), loss)
    with _untouched(inner):
        kept = None if path is None else State(path, inner, settings)
        stream = Stream(tasks, inner, settings.seed)
        found, inside = _inside(inner, stream, objective, head, adapts_head=settings.method == "anil")
        fresh = Progress(_weights(inner), copies(dict(inner.named_buffers())))
        progress = fresh if kept is None else kept.read(fresh, stream)
        learning = Learning(inner, Method(settings, objective, inside), stream, progress)
        learning.run(rounds, every, None if kept is None else kept.write)
        return _learned(inner, settings, found, objective, learning.progress)


def evaluate_episodes(
    model: nn.Module,
    tasks: Any,
    *,
    episodes: int = 600,
    inner_steps: int = 5,
    inner_lr: float = 0.01,
    head: str | None = None,
    loss: Callable[[Any, Any], Tensor] | None = None,
    seed: int = 0,
) -> EpisodeScores:
    """Returns how far a model's weights come on new tasks in a few steps: loss and accuracy, with intervals.

    Each task is adapted to by plain gradient descent on its support, from the weights that the model has, and judged on
    its query; then all is put back. So a learned start, a pretrained one and a fresh draw can be compared on the same
    tasks: give each the rate that suits it best. Use tasks that the start was not learned from.

    The model is used in the mode that it is in, as in `meta_learn`, and is left as it was.

    Args:
        model: The weights of this module are judged.
        tasks: The episodes, as of `meta_learn`; what ends is not begun anew.
        episodes: So many are adapted to, or as many as there are.
        inner_steps: So many steps are taken on each; with 0 nothing is adapted.
        inner_lr: This is the rate of those steps.
        head: This is the path of the part that adapts, of a start learned by "anil". None means that all does.
        loss: This callable (output, target) -> scalar tensor is the loss. None means that it is inferred, as in
            `select`.
        seed: This whole number decides what is random: dropout, and what a sampler draws from the global generators.

    Returns:
        The scores: `loss`, `before` and `accuracy`, each with `mean` and the ends `low` and `high` of its 95 %
        interval, and `losses` of the single episodes. Print it for one line.

    Raises:
        ArgumentError: A rate, a number or the head is none that is allowed.
        DataError: Tasks are empty, an episode cannot be used, or the model cannot take it.
        ModelError: Nothing of the model is trainable, or its weights are not finite.
        StepError: The loss cannot be called, or returns no scalar. After any error the model is as it was.

    Example:
        >>> import autoinit, torch
        >>> from sklearn.datasets import load_digits
        >>> from torch import nn
        >>> pixels, labels = load_digits(return_X_y=True)
        >>> tasks = autoinit.episodes(pixels / 16, labels, ways=3, shots=2, queries=5)
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3))
        >>> scores = autoinit.evaluate_episodes(model, tasks, episodes=20, inner_lr=0.5)
        >>> scores.loss.mean < scores.before.mean
        True
    """
    check_seed(seed)
    check_count("episodes", episodes)
    check_count("inner_steps", inner_steps, 0)
    check_rate("inner_lr", inner_lr)
    inner, objective = _checked(model), Objective(unwrap(model), loss)
    with _untouched(inner):
        stream = Stream(tasks, inner, seed, again=False)
        inside = _inside(inner, stream, objective, head, adapts_head=head is not None)
        scorer = Scorer(objective, inside[1], int(inner_steps), float(inner_lr), seed)
        buffers = copies(dict(inner.named_buffers()))
        return scorer.scores(_weights(inner), buffers, stream, episodes, Traces(inner))


def _checked(model: nn.Module) -> nn.Module:
    inner = unwrap(model)
    check_trainable(inner)
    if any(parameter.is_meta for parameter in inner.parameters()):
        raise ModelError(
            "the model is on the meta device, where it has no weights to begin at. Move it to another one."
        )
    check_weights(inner)
    return inner


@contextlib.contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    """Puts the model and all random states back at the end, whatever happens inside."""
    with torch.inference_mode(False), torch.enable_grad(), uncompiled(), preserved(model):
        yield


def _weights(model: nn.Module) -> Tensors:
    return copies({name: one for name, one in model.named_parameters() if one.requires_grad})


def _inside(
    model: nn.Module, stream: Stream, objective: Objective, head: str | None, *, adapts_head: bool
) -> tuple[str, list[str]]:
    """Returns the path of the head that adapts alone, empty where all does, and the names of the weights that adapt.

    The first episode, which stays in the stream, is passed through the model once.
    """
    episode, traces = stream.peek(), Traces(model)
    buffers = copies(dict(model.named_buffers()))
    try:
        objective.check(_weights(model), copies(buffers), episode, "episode 0")
        with torch.no_grad():
            objective.loss(_weights(model), copies(buffers), episode[0])
        if adapts_head:
            return head_of(model, head, episode, objective)
    except (AutoInitError, *OUT_OF_MEMORY):
        raise
    except USER_ERRORS as problem:
        raise refused(problem, episode, "episode 0") from problem
    finally:
        traces.wipe()
    return "", list(_weights(model))


def _learned(model: nn.Module, settings: Settings, head: str, objective: Objective, progress: Progress) -> LearnedStart:
    frozen = {name: one for name, one in model.named_parameters() if not one.requires_grad}
    parameters = copies({**frozen, **progress.weights})
    return LearnedStart(
        {name: parameters[name].cpu() for name, _ in model.named_parameters()},
        {name: progress.buffers[name].detach().cpu().clone() for name, _ in lasting_buffers(model)},
        method=settings.method,
        inner_steps=settings.inner_steps,
        inner_lr=settings.inner_lr,
        outer_lr=settings.outer_lr,
        meta_batch=settings.meta_batch,
        rounds=progress.rounds,
        seed=settings.seed,
        head=head,
        loss=objective.name,
        history=tuple(progress.history),
        autoinit=__version__,
        torch=str(torch.__version__),
    )
