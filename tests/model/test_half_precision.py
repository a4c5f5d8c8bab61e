"""Where bfloat16 differs from float32: in the rounding of maps on the way forward, not in the order of sums.

`python tests/support/half_precision.py` prints the figures of each layer.
"""

import pytest
import torch
from half_precision import errors, network, real_clips

from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, float]]:
    clips, labels = real_clips()
    return errors(lambda: network("tiny", clips.shape[-1], None), clips, labels)


def test_gradients_in_bfloat16_differ_by_the_rounding_of_maps_and_not_by_the_order_of_sums(
    table: dict[str, dict[str, float]],
) -> None:
    """Maps that are rounded to 8 bits change gradients by many percent, and gradients that are rounded by about 1."""
    assert table["order"]["all"] < 1e-4
    assert table["backward"]["all"] < 0.02
    assert table["forward"]["all"] > 2 * table["backward"]["all"]
    assert table["bf16"]["all"] < 3 * table["forward"]["all"]
    assert table["bf16"]["all"] < 0.25
    gain = "backbone.attentions.0.gain"
    assert max(table["order"][gain], table["backward"][gain]) < 0.1 * table["bf16"][gain]


def test_classifiers_compute_in_float32_under_autocast() -> None:
    torch.manual_seed(0)
    model = AttenGait(ModelConfig(num_classes=50))
    embeddings = torch.randn(3, 62, 16)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model.classify(embeddings)
        half = model.classify(embeddings.bfloat16())
    assert logits.dtype == half.dtype == torch.float32
    assert torch.equal(logits, model.classify(embeddings))
