"""The architecture as data: one `Layer` per parameter, the same on every device."""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from .activations import LINEAR, Activation
from .errors import ModelError, did_you_mean
from .screen import chart, markup
from .screen.columns import Column, table, wrapped

Role = Literal[
    "input",
    "hidden",
    "residual_out",
    "query",
    "key",
    "value",
    "qkv",
    "attention_out",
    "gate",
    "router",
    "embedding",
    "position",
    "recurrent_input",
    "recurrent",
    "output",
    "norm_scale",
    "layer_scale",
    "lora",
    "bias",
    "scalar",
    "other",
]
"""What a parameter is for. "other" is what could not be told; it is kept, with the reason."""

Kind = Literal[
    "linear",
    "conv",
    "conv_transposed",
    "bilinear",
    "embedding",
    "recurrent",
    "norm",
    "bias",
    "scale",
    "other",
]
"""How a parameter acts: the operation that consumes it."""

TABLES = frozenset({"embedding", "position"})
"""Roles of a table whose rows are added up to what a network reads: one scale suits all of them."""

HEADS = frozenset({"output", "embedding"})
"""Roles of a weight that may have an output bias."""

WITHOUT_VALUES = (
    "Read on the meta device, where weights have no values: what a plan keeps needs some before it is applied. After "
    "to_empty(device=…) call the model's own code (init_weights(), each module's reset_parameters()), then apply it."
)
"""A note of a graph, and of a plan that keeps something."""

TRAINED = "trained"
"""How the reason begins why a parameter must stay that somebody has trained before."""

BESIDE_ADAPTERS = f"{TRAINED}, as what is beside adapters is; if it is new, name it in only="
"""Why other parameters than adapters stay where a model has those: nothing tells a new head from a trained one."""

IN_CHECKPOINT = f"{TRAINED}: it is in the checkpoint"
"""Why a parameter stays that a checkpoint has."""

Globs = str | Sequence[str] | None

ROLES: tuple[str, ...] = get_args(Role)
MATRIX_KINDS = frozenset({"linear", "conv", "conv_transposed", "bilinear", "recurrent"})
"""Kinds that contract their input, so that fans and a variance make sense."""


ADDED = {
    "copy_of": "",
    "interleaved": False,
    "mixed": False,
    "multiplier": 1.0,
    "offset": 0.0,
    "adapter": "",
    "lends": False,
    "inherits": False,
    "new_rows": 0,
    "less": [],
    "origin": "",
    "network": 0,
    "mean": 0.0,
    "modulates": False,
    "conditions": False,
}
"""Fields of layers and fills that came later, with what was true before: files and fingerprints leave that out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One parameter and its place in the network.

    `autoinit.trace` reads one from each parameter, and a `Graph` maps names to them: `graph["0.weight"].role`. It is
    plain data, the same on every device and without the parameter's values, and all that a recipe's rules look at when
    they decide what the parameter gets.

    Attributes:
        name: name as in `model.named_parameters()`; of a parametrized weight, the name of the derived tensor
            ("0.weight", not "0.parametrizations.weight.original0").
        shape: shape of the tensor that is filled.
        kind: the operation that consumes it.
        role: what it is for.
        fan_in: inputs summed into one output unit, receptive field included; 0 for what is no matrix.
        fan_out: outputs that one input unit reaches; 0 for what is no matrix. Of a fused weight, of one slice; of
            experts or the like, stacked in one tensor, of one of them.
        out_axes: axes of the tensor that index output units.
        in_axes: axes that are contracted with the input (kernel axes of a convolution included).
        groups: number of groups of a grouped convolution.
        slices: equal blocks along the first out axis, each a matrix of its own (fused QKV 3, LSTM 4, GRU 3).
        interleaved: its slices are no blocks but take turns along that axis: units 0, n, 2n, … are the first.
        cell: the recurrent cell it belongs to.
        activation: the function between this layer's output and the next weight.
        mixed: rows of its output are added up before that function: by attention, over neighbours in a graph.
        depth: number of weights before it on the longest path from the data.
        residual_depth: residual adds that its input has passed.
        in_branch: it lies inside a residual branch.
        branch_weights: weights in series on that branch; 0 outside branches.
        closes_branch: it is the last weight on its branch.
        rectified: a ReLU or the like stands between it and the residual add or the loss; at zero no gradient passes.
        post_norm: it closes a branch whose residual add is followed at once by a normalization (post-LN).
        normalized: a normalization follows before any nonlinearity or residual add, so its scale does nothing.
        attention: the attention that it feeds or follows, named by one of its weights; empty outside attention.
        heads: number of heads of that attention, of keys and values their own number where it is smaller; 0 outside.
        cross: that attention takes its keys from another stream than its queries.
        stack: "encoder" for what makes the keys of cross attentions, "decoder" for what else they depend on and for
            what comes after them; empty without cross attention, and for what is part of both.
        of: the weight that it belongs to: for a bias, the one whose output it shifts; for a multiplier of a residual
            branch (role "layer_scale") or of its skip, the one that closes the branch; for an adapter, the one beside.
        on_skip: it multiplies the skip of a residual add (Admin's ω, a learned DeepNorm α).
        multiplier: the constant that multiplies it on its way into its product (equalized learning rates); of a
            tensor, such as a mask, the root mean square.
        offset: the number that is added to it on its way, as in a normalization's scale of 1 + w; 0 for a matrix.
        tied_to: other names of the same tensor.
        parametrized: how the tensor is derived ("weight_norm", "orthogonal", …); empty where it is a leaf.
        keep: why it must stay as the owner made it; empty where it is free.
        copy_of: the parameter that it equals and is to equal, as no gradient reaches it: of a target network, the one
            of the network that is trained; empty where it is no copy.
        adapter: the part that it has in a low-rank addition to the weight `of`: "down" reads that one's input, "up"
            gives its output; empty elsewhere.
        lends: it is a trained weight beside such a pair, which may take from it what the pair adds.
        inherits: a trained network of another size, which the model may take after, has something for it.
        modulates: its outputs shift, scale as 1 + s and gate streams that other weights make, and do nothing else
            (adaptive normalization, FiLM): at zero, streams pass unchanged and gated branches are closed.
        conditions: what it makes reaches the outputs through such weights only, as embedded times and classes do.
        new_rows: its first row that its checkpoint does not have; 0 where it has all of them, or none.
        network: number of the network that it is part of, where a model holds several which only the loss brings
            together (a generator and a discriminator); 0 for the first, and for what is part of none.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    role: Role
    fan_in: int = 0
    fan_out: int = 0
    out_axes: tuple[int, ...] = ()
    in_axes: tuple[int, ...] = ()
    groups: int = 1
    slices: int = 1
    interleaved: bool = False
    cell: Literal["", "rnn", "lstm", "gru"] = ""
    activation: Activation = LINEAR
    mixed: bool = False
    depth: int = 0
    residual_depth: int = 0
    in_branch: bool = False
    branch_weights: int = 0
    closes_branch: bool = False
    rectified: bool = False
    post_norm: bool = False
    normalized: bool = False
    attention: str = ""
    heads: int = 0
    cross: bool = False
    stack: Literal["", "encoder", "decoder"] = ""
    of: str | None = None
    on_skip: bool = False
    multiplier: float = 1.0
    offset: float = 0.0
    tied_to: tuple[str, ...] = ()
    parametrized: str = ""
    keep: str = ""
    copy_of: str = ""
    adapter: Literal["", "down", "up"] = ""
    lends: bool = False
    inherits: bool = False
    modulates: bool = False
    conditions: bool = False
    new_rows: int = 0
    network: int = 0

    @property
    def is_matrix(self) -> bool:
        """Whether it contracts its input, so that fans and a variance make sense."""
        return self.kind in MATRIX_KINDS

    @property
    def kernel_axes(self) -> tuple[int, ...]:
        """The axes that run over the taps of a convolution's kernel; empty for what is no convolution."""
        return self.in_axes[1:] if self.kind in ("conv", "conv_transposed") else ()

    @property
    def size(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


_COLUMNS = (
    Column("parameter", least=20, cut="middle"),
    Column("shape", rank=2),
    Column("kind", rank=6),
    Column("role"),
    Column("fan in", ">", rank=3),
    Column("fan out", ">", rank=4),
    Column("activation", rank=1),
    Column("depth", ">", rank=5),
    Column("kept because", rank=1, least=16),
)
_SOURCES = {"autograd": "autograd graph of one step", "modules": "module tree, without data"}


@dataclass(frozen=True, repr=False)
class Graph(Mapping[str, Layer]):
    """The architecture: parameter name → `Layer`, in the order of `model.named_parameters()`.

    `autoinit.trace(model, data)` reads one, and a `Selection` and a `Diagnosis` carry the one that they are about.
    Print it for a table; look a parameter up by its name; give it to `autoinit.resolve` for the plan of a recipe. It
    holds no weights and does not refer to the model.

    Attributes:
        layers: every parameter of the model, frozen and unreached ones included (see `Layer.keep`).
        residual_adds: residual branches added on the longest path, L in GPT-2's 1/√L.
        source: "autograd" when read from a training step, "modules" when read from the module tree.
        label_prior: relative frequency of each class in the data; empty where the loss is no classification.
        independent_labels: whether each of them is a label by itself (binary cross-entropy) and no class.
        sequence_length: time steps that the recurrent layers run over; None where there are none, or it is unknown.
        notes: what the reader could not see, in words.
        starts: names of learned starts and tickets that were given and fit it.
        grows: ways in which it can take after a trained network that was given, names of `GROWTH_ROWS`.
        networks: residual adds of each network, by its number, where the model holds several; empty where it is one.
    """

    layers: tuple[Layer, ...]
    residual_adds: int = 0
    source: Literal["autograd", "modules"] = "autograd"
    label_prior: tuple[float, ...] = ()
    sequence_length: int | None = None
    notes: tuple[str, ...] = ()
    independent_labels: bool = False
    grows: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    networks: tuple[int, ...] = ()
    _by_name: dict[str, Layer] = field(init=False, repr=False, compare=False)
    _depths: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {layer.name: layer for layer in self.layers})
        depths = [layer.depth for layer in self.weights]
        object.__setattr__(self, "_depths", (min(depths, default=0), max(depths, default=0)))

    def __getitem__(self, name: str) -> Layer:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self.layers)

    def __hash__(self) -> int:
        return hash((self.layers, self.residual_adds, self.source))

    def around(self, layer: Layer) -> Graph:
        """Returns the network that a layer is part of, as a graph: the whole one where the model holds no other."""
        return self._apart[layer.network] if self.networks else self

    @functools.cached_property
    def _apart(self) -> tuple[Graph, ...]:
        members = [tuple(one for one in self.layers if one.network == place) for place in range(len(self.networks))]
        pairs = zip(members, self.networks, strict=True)
        return tuple(
            dataclasses.replace(self, layers=layers, residual_adds=adds, networks=()) for layers, adds in pairs
        )

    @property
    def weights(self) -> tuple[Layer, ...]:
        """The free matrices: what an initializer of variances may draw."""
        return tuple(layer for layer in self.layers if layer.is_matrix and not (layer.keep or layer.adapter))

    @property
    def weight_depths(self) -> tuple[int, int]:
        """The smallest and the largest depth of a free matrix."""
        return self._depths

    @property
    def output_biases(self) -> tuple[Layer, ...]:
        """The free biases of outputs; an embedding's bias is that of the head that shares its weight."""
        heads = {layer.name for layer in self.layers if layer.role in HEADS}
        return tuple(layer for layer in self.layers if layer.role == "bias" and layer.of in heads and not layer.keep)

    @property
    def trained(self) -> tuple[Layer, ...]:
        """What somebody has trained before, as far as that is known: it stays, or lends to an adapter."""
        return tuple(layer for layer in self.layers if layer.lends or layer.keep.startswith(TRAINED))

    def has_role(self, *roles: str) -> bool:
        """Whether a free parameter has one of these roles."""
        return any(layer.role in roles and not layer.keep for layer in self.layers)

    def __str__(self) -> str:
        """Returns a table: what each parameter is, and what was read about it."""
        notes = "".join(f"\n{wrapped(f'Note: {note}', '  ')}" for note in self.notes)
        return f"{self._head}\n\n{table(_COLUMNS, self._rows)}{notes}"

    def __repr__(self) -> str:
        return f"<Graph: {self._head}>"

    def _repr_html_(self) -> str:
        widths = [(layer.depth, layer.fan_in) for layer in self.weights if layer.fan_in]
        widths = widths if len({fan for _, fan in widths}) > 1 else []  # a flat line tells nothing
        return markup.page(
            self._head,
            chart.lines([chart.Series("a weight", widths)], "depth", "fan in", logarithmic=True),
            *(markup.facts([("note", note)]) for note in self.notes),
            markup.folded("Every parameter", markup.table(_COLUMNS, self._rows)),
        )

    @property
    def _head(self) -> str:
        adds = f", {self.residual_adds} residual adds" if self.residual_adds else ""
        adds += f", {len(self.networks)} networks" if self.networks else ""
        return f"{len(self)} parameters read from the {_SOURCES[self.source]}{adds}"

    @property
    def _rows(self) -> list[tuple[str, ...]]:
        return [
            (
                layer.name,
                "×".join(map(str, layer.shape)) or "1",
                layer.kind,
                layer.role,
                str(layer.fan_in or "-"),
                str(layer.fan_out or "-"),
                str(layer.activation) if layer.is_matrix else "-",
                str(layer.depth),
                layer.keep,
            )
            for layer in self.layers
        ]

    def keeping(self, reasons: Mapping[str, str]) -> Graph:
        """Returns the graph in which some parameters must stay as they are, but for those that stay anyway.

        Args:
            reasons: why, by the parameter's name.
        """
        if not reasons:
            return self
        layers = (dataclasses.replace(one, keep=one.keep or reasons.get(one.name, "")) for one in self.layers)
        return dataclasses.replace(self, layers=tuple(layers))

    def stale(self) -> Graph:
        """Returns the graph in which what a checkpoint has may change: that is what a renewal is asked for."""
        layers = (dataclasses.replace(one, keep="") if one.keep == IN_CHECKPOINT else one for one in self.layers)
        return dataclasses.replace(self, layers=tuple(layers))

    def restricted(self, only: Globs = None, exclude: Globs = None) -> Graph:
        """Returns the graph in which parameters outside `only`, or inside `exclude`, must stay as they are.

        Args:
            only: globs of parameter names; None for all.
            exclude: globs of parameter names; None for none.

        Raises:
            ModelError: a glob matches no parameter, or nothing is left to initialize.
        """
        wanted, unwanted = self._matching(only, "only"), self._matching(exclude, "exclude")
        if wanted is None and unwanted is None:
            return self
        layers = []
        for layer in self.layers:
            why = ""
            if wanted is not None and layer.name in wanted and layer.keep == BESIDE_ADAPTERS:
                layer = dataclasses.replace(layer, keep="")
            if wanted is not None and layer.name not in wanted:
                why = "not among the names given by `only`"
            elif unwanted is not None and layer.name in unwanted:
                why = "excluded by name"
            stays = dataclasses.replace(layer, keep=layer.keep or why, lends=False, new_rows=0)
            layers.append(stays if why else layer)
        if all(layer.keep and not layer.new_rows for layer in layers):
            raise ModelError(f"`only` = {only!r} and `exclude` = {exclude!r} leave no parameter to initialize.")
        return dataclasses.replace(self, layers=tuple(layers))

    def _matching(self, globs: Globs, argument: str) -> set[str] | None:
        if globs is None:
            return None
        found: set[str] = set()
        for pattern in [globs] if isinstance(globs, str) else globs:
            matches = fnmatch.filter((name for layer in self.layers for name in (layer.name, *layer.tied_to)), pattern)
            if not matches:
                raise ModelError(f"`{argument}` glob {pattern!r} matches no parameter. {did_you_mean(pattern, self)}")
            found.update(layer.name for layer in self.layers if {layer.name, *layer.tied_to} & set(matches))
        return found
