"""What each process of a gang does in the tests of training on many devices."""

import contextlib
import os
import signal
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import torch
from heard import Heard

from attengait.model.config import ModelConfig
from attengait.model.net import PARTS, AttenGait
from attengait.pipelines.cache import choose_together, open_clips
from attengait.pipelines.train import train_run
from attengait.sampling.plan import BatchPlan, ClipBatch
from attengait.store import open_store
from attengait.system.stopping import StopRequest
from attengait.training import trainer as trainer_module
from attengait.training.augment import augment
from attengait.training.config import OptimiserSettings, make_config
from attengait.training.hooked import Hooked
from attengait.training.losses import loss_terms
from attengait.training.margins import AdaptiveMargins
from attengait.training.ranks import ALONE, joined_ranks
from attengait.training.triplets import pairs_of_groups, triplet_term

SMALL = {
    "size": "tiny",
    "blocks_per_stage": 1,
    "subjects_per_batch": 2,
    "clips_per_subject": 2,
    "clip_frames": 16,
    "epochs": 3,
    "epochs_without_cross_entropy": 1,
    "warmup_epochs": 1,
    "learning_rate": 2e-4,
    "mixup_probability": 0.5,
    "cutmix_probability": 0.5,
    "precision": "fp32",
    "device": "cpu",
    "loggers": (),
}


def train(store, run, changes=(), resume=False, stop_at=None, raise_at=None):
    """Train a run, and return its reports and how it ended. `stop_at` and `raise_at` are (rank, step): this process is
    asked to stop, or fails, there."""
    stop, rank = StopRequest(), int(os.environ.get("RANK", "0"))
    heard = Heard()
    steps = trainer_module.Trainer._step

    def step(self, *arguments):
        batch = next(each for each in arguments if isinstance(each, ClipBatch))
        if stop_at == (rank, batch.step):
            stop.signal = signal.SIGTERM
        if raise_at == (rank, batch.step):
            raise ValueError("a fault of this process")
        return steps(self, *arguments)

    trainer_module.Trainer._step = step
    try:
        config = make_config({**SMALL, **dict(changes)})
        result = train_run(store, Path(run), config, resume=resume, progress=heard, stop=stop)
    finally:
        trainer_module.Trainer._step = steps
    losses = [each.losses for each in heard.details if hasattr(each, "losses")]
    return losses, result.steps, result.interrupted_by


def one_step(changes, replicas, num_subjects, clips_per_subject, with_classes=True, num_parts=1):
    """The mean losses of all processes and the gradients of a network with fixed weights, for fixed random clips."""
    if "RANK" not in os.environ:
        return _one_step(ALONE, changes, replicas, num_subjects, clips_per_subject, with_classes, num_parts)
    with joined_ranks() as ranks:
        return _one_step(ranks, changes, replicas, num_subjects, clips_per_subject, with_classes, num_parts)


@contextlib.contextmanager
def with_the_same_dropout():
    torch.manual_seed(7)
    yield


def _one_step(ranks, changes, replicas, num_subjects, clips_per_subject, with_classes, num_parts):
    settings = OptimiserSettings(**changes)
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(num_subjects).repeat_interleave(clips_per_subject)
    clips = torch.randint(0, 256, (len(labels), 16, 64, 64, 3), dtype=torch.uint8, generator=generator)
    torch.manual_seed(5)
    widths = {"widths": (4, 8, 8), "part_width": 8, "embedding_size": 4, "blocks_per_stage": 1}
    model = AttenGait(ModelConfig(num_classes=num_subjects, **widths)).train()
    margins = AdaptiveMargins(settings.margin, PARTS, torch.device("cpu")) if settings.adaptive_margin else None
    if margins is not None:
        margins.idle_batches += 200  # the margins of idle parts grow now
    with contextlib.closing(Hooked(model, torch.device("cpu"), ranks, num_parts=num_parts)) as hooked:
        targets = torch.eye(num_subjects)[ranks.own(labels)]
        mixed = augment(ranks.own(clips), targets, settings, torch.Generator().manual_seed(11), ranks)
        outputs = hooked(mixed.frames, with_classes=with_classes, context=with_the_same_dropout)
        pairs = pairs_of_groups(labels, settings, replicas=replicas, ranks=ranks, device=torch.device("cpu"))
        triplets = triplet_term(outputs.embeddings, pairs, settings, margins=margins, replicas=replicas, ranks=ranks)
        losses = loss_terms(model, triplets.loss, outputs.logits, mixed.targets, settings)
        losses |= {"active": triplets.active}
        losses["total"].backward()
        outputs.finish()
    if margins is not None:
        margins.update(ranks.sum(triplets.per_part))
        losses["margins"] = margins.values.sum()
    means = {name: float(ranks.mean(value.detach())) for name, value in losses.items()}
    gradients = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return means, {name: gradient.double().numpy() for name, gradient in gradients.items()}


def collect(values):
    """Exchange a tensor of which each process has its slice."""
    with joined_ranks() as ranks:
        own = ranks.own(torch.tensor(values)).clone().requires_grad_()
        whole = ranks.gather_with_gradients(own)
        (whole * (1 + ranks.rank) * torch.arange(len(values))).sum().backward()
        index = torch.arange(len(values)).flip(0)
        return {
            "ranks": (ranks.rank, ranks.world_size, ranks.is_first),
            "whole": whole.tolist(),
            "gradient": own.grad.tolist(),
            "rows": ranks.rows(own.detach(), index).tolist(),
            "mean": float(ranks.mean(torch.tensor(float(ranks.rank)))),
            "largest": ranks.largest(10 - ranks.rank),
        }


def differ(value_of_rank):
    """Compare what should be the same."""
    with joined_ranks() as ranks:
        ranks.check_same("the number", value_of_rank[ranks.rank])


def weights_at_first(num_parts):
    """The sum of the weights with which each process begins, where each has drawn others."""
    with joined_ranks() as ranks:
        torch.manual_seed(ranks.rank)
        widths = {"widths": (4, 8, 8), "part_width": 8, "embedding_size": 4, "blocks_per_stage": 1}
        model = AttenGait(ModelConfig(num_classes=2, **widths)).train()
        with contextlib.closing(Hooked(model, torch.device("cpu"), ranks, num_parts=num_parts)) as hooked:
            clips = torch.zeros(2, 16, 64, 64, 3, dtype=torch.uint8)
            hooked(clips, with_classes=True, context=with_the_same_dropout)
        return float(sum(each.double().abs().sum() for each in model.parameters()))


def continue_another(store, run_of_rank):
    """Each process continues a run of its own."""
    return train(store, run_of_rank[int(os.environ["RANK"])], {"replicas": 1}, True)


def stop_apart(store, run, stop_of_rank):
    """Each process is to stop at a step of its own."""
    return train(store, run, {"stop_after_steps": stop_of_rank[int(os.environ["RANK"])]})


def stops(signal_of_rank, over_of_rank):
    """What all hear of the signals and ends that each has."""
    with joined_ranks() as ranks:
        return ranks.any_stops(signal_of_rank[ranks.rank], is_over=over_of_rank[ranks.rank])


def clips_plan(store):
    names = sorted(set(store.sequences.subject.tolist()))
    return BatchPlan(store.sequences, names, subjects_per_batch=4, clips_per_subject=2, clip_frames=12, seed=3)


def keep_in_memory(path, number_of_clips, failing_rank=None):
    """What each process streams from frames that the machine keeps once: its clips, whether it may write that memory,
    its share of it in bytes, and its name as the system has it."""
    store = open_store(path)
    with joined_ranks() as ranks, store.reader() as reader:
        if failing_rank == ranks.rank:
            reader.close()
        with open_clips(
            "host",
            reader,
            store.sequences,
            clips_plan(store),
            start_step=1,
            num_steps=number_of_clips,
            device=torch.device("cpu"),
            ranks=ranks,
        ) as stream:
            clips = [batch.clips.numpy() for batch in stream]
            ranks.largest(0)  # all have it now
            ((name, may_write, share_bytes),) = mapped_by("attengait")
            ranks.largest(0)
        return clips, may_write, share_bytes, name


def mapped_by(name):
    """The maps of memory without a file whose name contains `name`: name, whether this process may write it, its share
    in bytes."""
    found = []
    for line in Path("/proc/self/smaps").read_text().splitlines():
        words = line.split()
        if "-" in words[0]:
            path, may_write = " ".join(words[5:]), "w" in words[1]
        elif words[0] == "Pss:" and path.startswith("/memfd:") and name in path:
            found.append((path, may_write, 1024 * int(words[1])))
    return found


def choose_apart(path, free_bytes_of_rank):
    """What processes choose whose machine seems to have other memory."""
    from attengait.pipelines import cache

    before = cache.available_memory_bytes
    with joined_ranks() as ranks:
        cache.available_memory_bytes = lambda: free_bytes_of_rank[ranks.rank]
        try:
            return choose_together("auto", [open_store(path)], torch.device("cpu"), ranks).cache
        finally:
            cache.available_memory_bytes = before


def choose_without_sharing(path, cache, failing_rank):
    """What processes choose of which one cannot share memory: the first cannot make it, another cannot open it."""
    from attengait.pipelines import shared_frames

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    with joined_ranks() as ranks:
        fault = {"open" if ranks.rank else "memfd_create": refuse} if ranks.rank == failing_rank else {}
        with mock.patch.object(shared_frames, "os", SimpleNamespace(**vars(os) | fault)):
            return choose_together(cache, [open_store(path)], torch.device("cpu"), ranks)


def fail_before_training(failing_rank):
    """One process cannot begin."""
    with joined_ranks() as ranks, ranks.all_or_none():
        if ranks.rank == failing_rank:
            raise ValueError("no such file here")


def embed_together(weights, path, out, batch_frames=40, fail_at=None, save_seconds=60):
    """Embed a store into a file; the batches of each process, and whether it returned embeddings.

    `fail_at` is (rank, number): this process fails at that batch of its own.
    """
    from attengait.evaluation import kept
    from attengait.pipelines import embed

    before = embed.EMBED_BATCH_FRAMES, kept.SAVE_SECONDS, AttenGait.embed_ragged
    seen = []
    with joined_ranks() as ranks:

        def embed_ragged(self, frames, lengths):
            if fail_at == (ranks.rank, len(seen)):
                raise ValueError("a fault of this process")
            seen.append(lengths)
            return before[2](self, frames, lengths)

        embed.EMBED_BATCH_FRAMES, kept.SAVE_SECONDS, AttenGait.embed_ragged = batch_frames, save_seconds, embed_ragged
        try:
            made = embed.embed_to_file(weights, path, Path(out), device="cpu", ranks=ranks)
        finally:
            embed.EMBED_BATCH_FRAMES, kept.SAVE_SECONDS, AttenGait.embed_ragged = before
    return seen, made is not None


def embed_apart(weights_of_rank, path):
    """Each process has a model of its own."""
    from attengait.pipelines.embed import prepare

    with joined_ranks() as ranks:
        prepare(weights_of_rank[ranks.rank], path, device="cpu", ranks=ranks)
