"""The optimiser for matrices."""

import torch
from anyrig.backend.train.loop.muon import Muon, orthogonalised


def test_singular_values_come_near_one() -> None:
    torch.manual_seed(0)
    for shape in ((3, 64, 64), (2, 96, 32), (2, 32, 96)):
        u, s, vt = torch.linalg.svd(torch.randn(shape), full_matrices=False)
        found = orthogonalised(u @ torch.diag_embed(s) @ vt, torch.float32)
        values = torch.linalg.svdvals(found)
        assert 0.6 < values.median() < 1.4 and values.max() < 2
        # the directions are kept: U^T found V is diagonal
        turned = u.mT @ found @ vt.mT
        assert (turned - torch.diag_embed(turned.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-3


def test_a_matrix_alone_moves_as_beside_others_of_its_shape() -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(3, 24, 16), torch.randn(2, 3, 24, 16)

    def after(chosen: list[int]) -> list[torch.Tensor]:
        matrices = [torch.nn.Parameter(start[i].clone()) for i in chosen]
        optimiser = Muon(matrices, lr=0.1, weight_decay=0.01, dtype=torch.float32)
        for step in grads:
            for matrix, i in zip(matrices, chosen, strict=True):
                matrix.grad = step[i].clone()
            optimiser.step()
        return [matrix.detach() for matrix in matrices]

    [alone] = after([1])
    assert torch.allclose(alone, after([0, 1, 2])[1], atol=1e-5)
    # root mean square of a step: 0.2 times the rate, as AdamW's steps have
    moved = alone - start[1]
    assert 0.1 < moved.square().mean().sqrt() / (2 * 0.1 * 0.2) < 1.5
