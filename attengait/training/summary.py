"""What a run is, before its first step: for the screen, for its log, and for whoever logs it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from attengait.model.config import ModelConfig
from attengait.model.loading import shapes_of
from attengait.sampling.plan import BatchPlan
from attengait.store.sequences import Sequences
from attengait.training.config import TrainingConfig, settings_of


def summarise(
    config: TrainingConfig,
    network: ModelConfig,
    plan: BatchPlan,
    sequences: Sequences,
    *,
    device: torch.device,
    precision: str,
    stores: Sequence[str],
    fingerprint: Mapping[str, Any],
    protocol: str | None,
    why_no_graphs: str | None,
) -> dict[str, Any]:
    """What is known of a run, as values of JSON. No tensor is made for it.

    `stores` are the names of the stores, `fingerprint` is what identifies their content, `protocol` that of the
    validation, if there is one, and `why_no_graphs` why there are no CUDA graphs, if there are none.
    """
    data, optimiser, used = config.data, config.optimiser, plan.sequences
    num_steps = optimiser.total_epochs * plan.steps_per_epoch
    num_clips = plan.subjects_per_batch * plan.clips_per_subject  # of all replicas
    return {
        "model": {
            "size": config.model.size,
            "parameters": sum(math.prod(shape) for shape in shapes_of(network).values()),
            "classes": network.num_classes,
            "channels": network.channels,
        },
        "steps": {"total": num_steps, "per_epoch": plan.steps_per_epoch, "epochs": optimiser.total_epochs},
        "batch": {
            "subjects": plan.subjects_per_batch,
            "clips_per_subject": plan.clips_per_subject,
            "clips": num_clips,
            "clip_frames": data.clip_frames,
        },
        "device": {
            "name": str(device),
            "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
            "precision": precision,
            "why_no_cuda_graphs": why_no_graphs,
        },
        "data": {
            "stores": list(stores),
            "subjects": len(plan.subjects),
            "sequences": len(used),
            "frames": int(sequences.length[used].sum()),
            "clips": num_steps * num_clips,
            "fingerprint": dict(fingerprint),
        },
        "validation": None
        if protocol is None
        else {
            "every_steps": config.run.validate_every_steps,
            "subjects": len(data.validation_subjects),
            "protocol": protocol,
        },
        "settings": settings_of(config),
    }


def summary_lines(about: Mapping[str, Any]) -> list[str]:
    """A summary in words; empty where there is none."""
    if not about:
        return []
    model, steps, batch, device, data = (about[name] for name in ("model", "steps", "batch", "device", "data"))
    validation = about["validation"]
    gpu = f" ({device['gpu']})" if device["gpu"] else ""
    why_not = device["why_no_cuda_graphs"]
    held_out = len(about["settings"]["validation_subjects"])
    unused = f", although {held_out:,} subjects are held out: set validate_every_steps" if held_out else ""
    graphs = "CUDA graphs where they prove right" if why_not is None else f"no CUDA graphs ({why_not})"
    return [
        f"model: size {model['size']}, {model['parameters']:,} parameters, {model['classes']:,} classes, "
        f"{model['channels']} channels",
        f"steps: {steps['total']:,} in {steps['epochs']:,} epochs of {steps['per_epoch']:,}",
        f"batch: {batch['clips']:,} clips of {batch['clip_frames']} frames: {batch['subjects']} subjects x "
        f"{batch['clips_per_subject']} clips",
        f"device: {device['name']}{gpu}, precision {device['precision']}, {graphs}",
        f"data: {data['subjects']:,} subjects, {data['sequences']:,} sequences, {data['frames']:,} frames; "
        f"{data['clips']:,} clips are drawn in all",
        f"validation: none{unused}"
        if validation is None
        else f"validation: {validation['subjects']:,} subjects held out, every {validation['every_steps']:,} steps, "
        f"protocol {validation['protocol']}",
    ]
