"""Networks of PyTorch: `from_torch` makes a net of a `torch.nn.Module`.

torch, version 2.6 or newer, is needed for it: `pip install 'pycnn[torch]'`. For weights alone see
`pycnn.load_weights`.
"""

from pycnn.pytorch._module import TorchModule, from_torch

__all__ = ["TorchModule", "from_torch"]
