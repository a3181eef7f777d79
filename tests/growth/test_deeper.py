"""Deeper networks: new blocks that pass on what they get, and those that cannot."""

from __future__ import annotations

import pytest
import torch
from grown import CLASSES, PICTURES, ROWS, WORDS, ResNet, apart, batch, cnn, fresh, gpt2, grow, mlp, paired, shaken
from torch import Tensor, nn
from torch.nn import functional as F

EXACT = 1e-5


@pytest.mark.parametrize("name", ["mlp, deeper", "cnn, deeper", "resnet, deeper", "gpt2, deeper", "llama, deeper"])
def test_identity_keeps_outputs_and_stacking_does_not(name: str) -> None:
    pair = fresh(name)
    assert not grow(pair, "identity").notes
    assert apart(pair) < EXACT
    notes = grow(pair, "stack").notes
    assert apart(pair) > 1e-2
    assert any("does its work twice" in note for note in notes)


def test_new_blocks_of_a_transformer_train_at_once() -> None:
    pair = fresh("gpt2, deeper")
    given = grow(pair, "identity")
    new = [name for name, why in given.why.items() if "passes on" in why]
    assert sorted(new) == [
        f"transformer.h.{block}.{part}.c_proj.{kind}"
        for block in (1, 2)
        for part in ("attn", "mlp")
        for kind in ("bias", "weight")
    ]
    assert all(torch.all(given.values[name] == 0) for name in new)
    pair.model(**batch(pair.inputs)).loss.backward()
    parameters = dict(pair.model.named_parameters())
    assert all(parameters[name].grad.abs().max() > 0 for name in new)


def test_a_residual_block_with_batch_norm_is_silenced_by_its_last_scale() -> None:
    pair = fresh("resnet, deeper")
    given = grow(pair, "identity")
    assert torch.all(given.values["layers.1.bn2.weight"] == 0)
    assert torch.all(given.values["layers.1.bn2.bias"] == 0)
    assert given.values["layers.1.conv2.weight"].abs().min() > 0  # of its neighbour, and ready to be heard
    pair.model.train()
    F.cross_entropy(pair.model(PICTURES), batch(PICTURES)[1]).backward()
    assert pair.model.layers[1].bn2.weight.grad.abs().max() > 0


def test_a_scale_of_one_plus_w_is_silenced_by_minus_one() -> None:
    pair = fresh("gemma2")
    values = grow(pair, "identity").values
    assert torch.all(values["model.layers.1.post_feedforward_layernorm.weight"] == -1)
    assert apart(pair) < EXACT


def test_stacking_copies_the_nearest_neighbour() -> None:
    source, model = shaken(gpt2(16, 2, 2), 1), gpt2(16, 2, 4)
    values = grow(paired(source, model, WORDS), "stack").values
    state = source.state_dict()
    for block, neighbour in enumerate((0, 0, 1, 1)):
        name = "transformer.h.{}.mlp.c_fc.weight"
        assert torch.equal(values[name.format(block)], state[name.format(neighbour)])


@pytest.mark.parametrize(
    ("activation", "reason"), [(nn.GELU, "gelu changes"), (nn.Tanh, "tanh changes"), (nn.LeakyReLU, "leaky_relu")]
)
def test_activations_that_change_their_own_output_are_named(activation: type[nn.Module], reason: str) -> None:
    pair = paired(shaken(mlp(8, activation), 1), shaken(mlp(8, activation, 2), 2), ROWS)
    notes = grow(pair, "identity").notes
    assert len(notes) == 1
    assert reason in notes[0]
    assert apart(pair) > 1e-3


def test_an_activation_that_nothing_has_passed_before_is_named() -> None:
    def net(layers: int) -> nn.Module:
        inner = [part for _ in range(layers) for part in (nn.Linear(6, 6), nn.ReLU())]
        return nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), *inner, nn.Linear(6, CLASSES))

    notes = grow(paired(shaken(net(0), 1), shaken(net(1), 2), ROWS), "identity").notes
    assert any("relu changes what no relu has made" in note for note in notes)


def test_a_convolution_with_a_stride_is_no_identity() -> None:
    class Net(nn.Module):
        def __init__(self, layers: int) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(1 if not i else 4, 4, 3, 2, 1) for i in range(layers))
            self.head = nn.Linear(4, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = layer(x).relu()
            return self.head(x.mean((2, 3)))

    notes = grow(paired(shaken(Net(2), 1), shaken(Net(3), 2), PICTURES), "identity").notes
    assert any("changes the size of pictures" in note for note in notes)


def test_a_first_block_like_no_other_is_no_neighbour() -> None:
    """Of a stage whose only block has a projection on its skip, a second block takes nothing but silence."""

    class Block(nn.Module):
        def __init__(self, ins: int, outs: int) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(ins, outs), nn.Linear(outs, outs)
            if ins != outs:
                self.skip = nn.Linear(ins, outs)

        def forward(self, x: Tensor) -> Tensor:
            kept = self.skip(x) if "skip" in self._modules else x
            return kept + self.two(F.relu(self.one(x)))

    class Net(nn.Module):
        def __init__(self, blocks: int) -> None:
            super().__init__()
            self.blocks = nn.Sequential(Block(5, 8), *(Block(8, 8) for _ in range(blocks)))
            self.head = nn.Linear(8, CLASSES)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.blocks(x))

    pair = paired(shaken(Net(0), 1), shaken(Net(1), 2), ROWS)
    own = pair.model.blocks[1].one.weight.detach().clone()
    given = grow(pair, "identity")
    assert apart(pair) < EXACT
    assert not given.notes
    assert torch.equal(pair.model.blocks[1].one.weight, own)
    assert torch.all(pair.model.blocks[1].two.weight == 0)


def test_depth_alone_leaves_old_blocks_as_they_were() -> None:
    source = shaken(ResNet(6, 2), 1, PICTURES)
    pair = paired(source, shaken(ResNet(6, 3), 2, PICTURES), PICTURES)
    values, state = grow(pair, "identity").values, source.state_dict()
    for block, old in ((0, 0), (2, 1)):
        for kind in ("conv1.weight", "bn1.weight", "bn2.running_var", "bn2.num_batches_tracked"):
            assert torch.equal(values[f"layers.{block}.{kind}"], state[f"layers.{old}.{kind}"])


def test_a_new_convolution_is_the_identity_with_its_normalization() -> None:
    pair = paired(shaken(cnn(4), 1, PICTURES), shaken(cnn(4, 1), 2, PICTURES), PICTURES)
    grow(pair, "identity")
    assert apart(pair) < EXACT
    x = torch.rand(2, 4, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(pair.model[3:6].eval()(x), x)
