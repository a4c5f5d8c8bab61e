"""Our operators work in programs that load nothing more, and after a module is loaded again, as notebooks do."""

import subprocess
import sys

SCRIPT = """
import sys
from importlib import reload

import torch
from attengait.model import patch_norm, temporal_windows
from attengait.model.config import ModelConfig
from attengait.model.net import AttenGait

network = AttenGait(ModelConfig(widths=(4, 8, 8), part_width=8, embedding_size=4))
frames = torch.randint(0, 256, (2, 16, 64, 64, 3), dtype=torch.uint8)

def gradients():
    torch.manual_seed(0)  # of the dropout
    network.zero_grad()
    network(frames).square().mean().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]

before = gradients()
for module in (patch_norm, temporal_windows):
    reload(module)
assert all(map(torch.equal, before, gradients()))
assert any(gradient.any() for gradient in before)
assert "torch._dynamo" not in sys.modules
"""


def test_a_network_loads_no_compiler_of_torch_and_its_operators_may_be_registered_again() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
