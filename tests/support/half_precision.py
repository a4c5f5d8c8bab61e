"""How far gradients in bfloat16 are from those in float32, layer by layer, and why.

    python tests/support/half_precision.py [STORE [SIZE [RUN]]]

Relative errors |g - g32| / |g32| of the gradients of one batch:

    order     float32 with the clips in another order: other orders of sums
    bf16      autocast, as training does it
    forward   float32, but the backbone's maps are rounded to bfloat16 where autocast stores them
    backward  float32, but the gradients of these maps are rounded instead
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attengait import load_model
from attengait.model.config import ModelConfig
from attengait.model.losses import cross_entropy, triplet_loss
from attengait.model.net import AttenGait
from attengait.model.precision import autocast
from attengait.store import open_store

CPU = torch.device("cpu")
STORE = Path(__file__).parents[1] / "data" / "walkers-0.1.0.zarr"
WAYS = ("order", "bf16", "forward", "backward")
SUBJECTS, CLIPS, FRAMES = 4, 2, 16


class _Forward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.bfloat16().float()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class _Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient.bfloat16().float()


def real_clips(where: Path = STORE) -> tuple[Tensor, Tensor]:
    """Clips uint8 [N, T, 64, 64, C] of a store, and their labels [N]."""
    store = open_store(where)
    names = sorted(set(map(str, store.sequences.subject)))[:SUBJECTS]
    clips, labels = [], []
    for label, name in enumerate(names):
        long = np.flatnonzero((store.sequences.subject == name) & (store.sequences.length >= FRAMES))
        for row in long[:CLIPS]:
            clips.append(torch.from_numpy(np.array(store[int(row)][:FRAMES])))
            labels.append(label)
    return torch.stack(clips), torch.tensor(labels)


def network(size: str, channels: int, run: Path | None) -> AttenGait:
    """A network without dropout; new, or with the weights of a run but for its classifiers."""
    torch.manual_seed(0)
    config = ModelConfig.of_size(size, channels=channels, num_classes=SUBJECTS, attention_dropout=0.0)
    model = AttenGait(config).train()
    if run is not None:
        taken = {k: v for k, v in load_model(run).state_dict().items() if not k.startswith("classifier")}
        model.load_state_dict(model.state_dict() | taken)
    return model


def gradients(make: Callable[[], AttenGait], clips: Tensor, labels: Tensor, way: str = "") -> dict[str, Tensor]:
    """The gradients of triplets and cross entropy, computed in one of the ways; "": in float32."""
    model = make()
    if way == "order":
        order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(5))
        clips, labels = clips[order], labels[order]
    rounding = {"forward": _Forward, "backward": _Backward}.get(way)
    if rounding is not None:
        for module in (*model.backbone.convolutions, *model.backbone.attentions):
            module.register_forward_hook(lambda module, inputs, output: rounding.apply(output))
    with autocast(CPU, "bf16" if way == "bf16" else "fp32"):
        embeddings = model(clips)
    targets = torch.eye(SUBJECTS)[labels]
    (triplet_loss(embeddings, labels) + cross_entropy(model.classify(embeddings), targets)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def errors(make: Callable[[], AttenGait], clips: Tensor, labels: Tensor) -> dict[str, dict[str, float]]:
    """For each way, the relative error of each gradient; that of all together by the name "all"."""
    exact = gradients(make, clips, labels)
    table = {}
    for way in WAYS:
        found = gradients(make, clips, labels, way)
        squares = {name: float((found[name] - exact[name]).double().square().sum()) for name in exact}
        sizes = {name: float(exact[name].double().square().sum()) for name in exact}
        table[way] = {name: (squares[name] / max(sizes[name], 1e-30)) ** 0.5 for name in exact}
        table[way]["all"] = (sum(squares.values()) / sum(sizes.values())) ** 0.5
    return table


if __name__ == "__main__":
    arguments = sys.argv[1:]
    real, subject_labels = real_clips(Path(arguments[0]) if arguments else STORE)
    chosen_size = arguments[1] if len(arguments) > 1 else "tiny"
    trained = Path(arguments[2]) if len(arguments) > 2 else None
    noise = torch.randint(0, 256, real.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for what, batch in (("walkers", real), ("random input", noise)):
        table = errors(lambda: network(chosen_size, real.shape[-1], trained), batch, subject_labels)
        print(f"\n{chosen_size}, {what}: relative errors of gradients\n{'':44}" + "".join(f"{way:>10}" for way in WAYS))
        for name in table["bf16"]:
            print(f"{name:44}" + "".join(f"{table[way][name]:10.1e}" for way in WAYS))
