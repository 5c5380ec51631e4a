"""minLSTM where both gates underflow: their share is still right."""

from __future__ import annotations

import torch

from ritornello.layers import MinLSTM


def test_gates_that_are_both_shut_share_by_their_difference() -> None:
    layer = MinLSTM(1, log_space=False)
    with torch.no_grad():
        layer.cell.proj.weight.copy_(torch.tensor([[1.0], [-200.0], [-201.0]]))  # f/(f + i) = σ(1), i/(f + i) = σ(−1)
        y = layer(torch.ones(1, 2, 1))[0].flatten()
    enter = torch.sigmoid(torch.tensor(-1.0))
    assert torch.allclose(y, torch.stack([enter, enter + (1 - enter) * enter]), atol=1e-5)
