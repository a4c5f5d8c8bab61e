"""A training step moves few bytes in few operations, whatever else changes."""

from traffic import training_step


def test_a_step_of_the_small_network_stays_below_its_ceilings() -> None:
    counted = training_step("small", 64, 30)
    assert sum(counted.bytes.values()) < 27e9
    assert counted.bytes["patch_norm"] + counted.bytes["patch_norm_backward"] < 12e9
    assert sum(counted.operations.values()) < 700
