"""What stands between Python and torch's functions while a block runs: it watches them, or does something else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.overrides import TorchFunctionMode


class Interceptor(TorchFunctionMode):
    """Is handed every call of a torch function inside a `with` block.

    Calls that `called` makes itself go past it, to the interceptors around it. `func.__name__` is "__get__" where an
    attribute of a tensor is read.
    """

    def called(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Returns what the caller gets: `func(*args, **kwargs)`, or something in its place.

        Args:
            func: a function of torch, or a method of `Tensor`.
            args: of the call.
            kwargs: of the call; empty where there are none.
        """
        raise NotImplementedError

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return self.called(func, args, kwargs or {})
