"""What Python called while the model ran: function, arguments, and the autograd nodes they became."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..task.batches import tensors
from ..task.interceptor import Interceptor

_RECURRENT = {
    "lstm",
    "gru",
    "rnn_tanh",
    "rnn_relu",
    "lstm_cell",
    "gru_cell",
    "rnn_tanh_cell",
    "rnn_relu_cell",
}
_FACTORIES = frozenset("tensor as_tensor scalar_tensor full zeros ones sqrt exp log mul div add sub pow neg".split())
"""Functions of numbers alone whose result may be a constant in a formula, such as √(2/π)."""

_CONSTANTS = frozenset(
    "gt lt ge le eq ne __gt__ __lt__ __ge__ __le__ __eq__ __ne__ sign sgn detach zeros_like ones_like full_like"
    " logical_not logical_and round floor".split()
)
"""Elementwise functions whose result has no gradient, yet belongs to an activation: a mask, a sign."""

_DIFFERENTIATING = frozenset({"grad", "_unpack_dual"})
"""Functions that return a derivative with a graph of its own: in reverse mode, and (value, derivative) in forward mode.
"""


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of an autograd node, in the place of a tensor."""

    fn: Any


class Unknown:
    """A tensor whose values are not kept: data, a mask, a parameter."""


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Noise(Unknown):
    """A tensor that was drawn at random in this step, or made of one.

    Attributes:
        centred: its mean is zero, as that of a normal draw; that of a mask is not.
    """

    centred: bool


_CENTRED_DRAWS = frozenset("randn randn_like normal normal_".split())
_OTHER_DRAWS = frozenset(
    "rand rand_like uniform_ bernoulli bernoulli_ exponential_ log_normal_ geometric_ cauchy_ poisson multinomial"
    " randint randint_like randperm dropout alpha_dropout feature_dropout".split()
)
_READING = frozenset("item tolist __bool__ __float__ __int__ __index__ __contains__ numpy __array__".split())
"""Methods that hand a tensor's values to Python."""
_FOLDING = frozenset("abs square exp pow sqrt softmax gt lt ge le eq ne where clamp relu sigmoid softplus".split())
"""Functions that take the sign, and so the mean of zero, from noise."""
_SHIFTING = frozenset("add radd iadd sub rsub isub".split())


@dataclass(frozen=True, slots=True)
class Call:
    """A function call with every tensor argument replaced by a `Ref`, a `Call`, a number or `UNKNOWN`."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]


@dataclass(eq=False)
class RecurrentCall:
    """One call of `torch.lstm`, `torch.gru_cell`, …, whatever its inside was recorded as.

    Attributes:
        name: of the function.
        inputs: autograd nodes of the inputs and states.
        outputs: autograd nodes of the results.
        weights: names of the parameters, in the order of the call.
        shape: of the first result.
        steps: time steps that this call runs over; 1 of a cell.
    """

    name: str
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    weights: tuple[str, ...]
    shape: tuple[int, ...]
    steps: int


class Complete(Exception):
    """Ends a step whose backward passes have met every trainable parameter: what follows repeats it."""


class Tape(Interceptor):
    """Records calls by the autograd node of their result; copies no tensor and reads no value.

    A buffer in a formula (a threshold) is not read, so that the graph is the same where it has no value. A step that
    accumulates gradients is ended by the micro-batch that completes the picture: backward is left out, so that the
    activations of all of them would be alive at a time.

    Attributes:
        calls: autograd node → the call that made it.
        recurrent: autograd node → the recurrent call that it is a result of.
        noisy: autograd nodes of calls that took what was drawn at random.
        losses: tensors on which `backward` was called; the call itself is left out.
        gradients: node of a gradient that the step took itself (a penalty, forces) → nodes of what it differentiated.
        outputs: nodes of what modules have returned.
        tossed: Python was told numbers that torch drew: what runs may hang on them.
    """

    def __init__(self, names: Mapping[int, str], trainable: Iterable[Tensor] = ()) -> None:
        """Begins an empty record.

        Args:
            names: id of each parameter tensor → its name.
            trainable: parameters; a backward that meets the last of them raises `Complete`.
        """
        super().__init__()
        self.calls: dict[Any, Call] = {}
        self.recurrent: dict[Any, RecurrentCall] = {}
        self.noisy: set[Any] = set()
        self.losses: list[Tensor] = []
        self.gradients: dict[Any, tuple[Any, ...]] = {}
        self.outputs: set[Any] = set()
        self.tossed = False
        self._names = names
        self._unmet = {id(parameter) for parameter in trainable}
        self._constants: dict[int, tuple[Tensor, Call]] = {}
        self._noise: Any = WeakTensorKeyDictionary()

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the function returns, and keeps the call under the node of that; a backward is left out."""
        if func is Tensor.backward:
            self._record_loss(args[0])
            return None
        name = str(func.__name__)
        if name in _DIFFERENTIATING:
            result = func(*args, **kwargs)
            self._record_gradient(name, args, kwargs, result)
            return result
        if name in _RECURRENT:
            before = list(tensors((args, dict(kwargs))))
            result = func(*args, **kwargs)
            self._record_recurrent(name, before, list(tensors(result)), _steps(name, args, kwargs))
            return result
        self.tossed = self.tossed or (name in _READING and args[0] in self._noise)
        if name == "__get__" or not torch.is_grad_enabled():
            result = func(*args, **kwargs)
            self._note_noise(name, args, kwargs, result)
            return result
        call = Call(func, self._keep(args), {key: self._keep(value) for key, value in kwargs.items()})
        result = func(*args, **kwargs)
        self._note_noise(name, args, kwargs, result)
        if isinstance(result, Tensor):
            if result.grad_fn is not None:
                if Ref(result.grad_fn) not in call.args:  # dropout of rate 0 and casts hand back their argument
                    self.calls.setdefault(result.grad_fn, call)
                    if any(isinstance(value, Noise) for value in call.args):
                        self.noisy.add(result.grad_fn)
            elif name in _CONSTANTS or (name in _FACTORIES and result.numel() == 1 and _is_known(call.args)):
                self._constants[id(result)] = (result, call)  # holding it keeps its id its own
        return result

    def returned(self, output: Any) -> None:
        """Notes what a module has returned."""
        self.outputs.update(fn for tensor in tensors(output) for fn in _nodes_of(tensor))

    def _record_gradient(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        outputs, made = (args[0] if args else kwargs["outputs"], result) if name == "grad" else result
        differentiated = tuple(fn for tensor in tensors(outputs) for fn in _nodes_of(tensor))
        for fn in (fn for tensor in tensors(made) for fn in _nodes_of(tensor)):
            if fn not in self.calls and fn not in self.outputs:  # of a linear function it may be one of its arguments
                self.gradients[fn] = differentiated

    def _keep(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                return Ref(value.grad_fn)
            if id(value) in self._constants and value not in self._noise:
                return self._constants[id(value)][1]
            return self._noise.get(value, UNKNOWN)
        if isinstance(value, (tuple, list)):
            return tuple(self._keep(item) for item in value)
        return value

    def _note_noise(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Any) -> None:
        """Remembers results without a gradient that are random, for as long as they live."""
        made = [tensor for tensor in tensors(result) if not tensor.requires_grad]
        noise = self._noise_of(name, list(tensors((args, dict(kwargs)))), args) if made else None
        if noise is not None:
            self._noise.update(dict.fromkeys(made, noise))

    def _noise_of(self, name: str, given: list[Tensor], args: tuple[Any, ...]) -> Noise | None:
        if name in _CENTRED_DRAWS or name in _OTHER_DRAWS:
            return Noise(centred=name in _CENTRED_DRAWS)
        plain = name.strip("_")
        found = [self._noise[tensor] for tensor in given if tensor in self._noise]
        if not found or plain == "zero":
            return None
        if plain in _FOLDING or (plain in _SHIFTING and len(found) < len(args)):
            return Noise(centred=False)
        return Noise(centred=any(noise.centred for noise in found))

    def _record_loss(self, loss: Tensor) -> None:
        self.losses.append(loss)
        if self._unmet:
            self._unmet -= leaves(loss.grad_fn)
            if not self._unmet:
                raise Complete

    def _record_recurrent(self, name: str, inputs: list[Tensor], outputs: list[Tensor], steps: int) -> None:
        weights = tuple(self._names[id(tensor)] for tensor in inputs if id(tensor) in self._names)
        data = tuple(
            tensor.grad_fn for tensor in inputs if tensor.grad_fn is not None and id(tensor) not in self._names
        )
        made = tuple(tensor.grad_fn for tensor in outputs if tensor.grad_fn is not None)
        if made:
            call = RecurrentCall(name, data, made, weights, tuple(outputs[0].shape), steps)
            self.recurrent.update(dict.fromkeys(made, call))


def _steps(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> int:
    """Returns the time steps of one call of `torch.lstm`, …: (input, state, …, batch_first) or (packed, lengths, …)."""
    if name.endswith("_cell"):
        return 1
    if isinstance(args[1], Tensor) and args[1].dim() == 1:  # a packed sequence: how many examples each step still has
        return len(args[1])
    return int(args[0].shape[1 if kwargs.get("batch_first", args[-1]) else 0])


def leaves(root: Any) -> set[int]:
    """Returns the id of every leaf tensor that gets a gradient from an autograd node."""
    found: set[int] = set()
    stack, seen = [root], {root}
    while stack:
        node = stack.pop()
        if node is None:
            continue
        if node.name().endswith("AccumulateGrad"):
            found.add(id(node.variable))
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                stack.append(following)
    return found


def _nodes_of(tensor: Tensor) -> Iterator[Any]:
    """Yields the autograd node of a tensor on each level of torch.func that it is wrapped in."""
    while True:
        if tensor.grad_fn is not None:
            yield tensor.grad_fn
        if not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
            return
        tensor = torch._C._functorch.get_unwrapped(tensor)


def _is_known(args: tuple[Any, ...]) -> bool:
    return all(not isinstance(value, (Unknown, Ref)) for value in args)
