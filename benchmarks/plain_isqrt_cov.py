"""iSQRT-COV in plain PyTorch, step by step as in the paper; the reference to beat."""

import torch


def centred(maps):
    """Covariance `(batch, d, d)` of maps `(batch, d, cells)`, the mean subtracted."""
    maps = maps - maps.mean(dim=2, keepdim=True)
    return maps.bmm(maps.transpose(1, 2)) / maps.shape[2]


def published(maps):
    """The same as the authors compute it, by the centring matrix of equation (1)."""
    batch, _, cells = maps.shape
    centring = torch.eye(cells) / cells - 1 / cells**2
    centring = centring.expand(batch, cells, cells)
    return maps.bmm(centring).bmm(maps.transpose(1, 2))


def root(matrices, iterations):
    """Pre-normalisation by the trace, Newton-Schulz, and post-compensation.

    The first iteration with `Z = I`, and the last without Z, as in the authors' code.
    """
    trace = _trace(matrices)
    normalized = matrices / trace
    three = _three(matrices)
    step = 0.5 * (three - normalized)
    y, z = normalized.bmm(step), step
    for _ in range(iterations - 2):
        step = 0.5 * (three - z.bmm(y))
        y, z = y.bmm(step), step.bmm(z)
    return 0.5 * y.bmm(three - z.bmm(y)) * trace.sqrt()


class PublishedRoot(torch.autograd.Function):
    """`root` with the backward pass of the authors' code, equations (6) to (9)."""

    @staticmethod
    def forward(context, matrices, iterations):
        trace = _trace(matrices)
        normalized = matrices / trace
        three = _three(matrices)
        step = 0.5 * (three - normalized)
        states = [(normalized.bmm(step), step)]
        for _ in range(iterations - 2):
            y, z = states[-1]
            step = 0.5 * (three - z.bmm(y))
            states.append((y.bmm(step), step.bmm(z)))
        y, z = states[-1]
        last = 0.5 * y.bmm(three - z.bmm(y))
        context.save_for_backward(matrices, normalized, last, *sum(states, ()))
        return last * trace.sqrt()

    @staticmethod
    def backward(context, cotangent):
        matrices, normalized, last, *states = context.saved_tensors
        trace, three = _trace(matrices), _three(matrices)
        by_trace = _inner(cotangent, last) / (2 * trace.sqrt())
        last = cotangent * trace.sqrt()
        y, z = states[-2:]
        dy = 0.5 * (last.bmm(three - y.bmm(z)) - z.bmm(y).bmm(last))
        dz = -0.5 * y.bmm(last).bmm(y)
        for k in range(len(states) - 4, -1, -2):
            y, z = states[k], states[k + 1]
            yz, zy = three - y.bmm(z), z.bmm(y)
            dy, dz = (
                0.5 * (dy.bmm(yz) - z.bmm(dz).bmm(z) - zy.bmm(dy)),
                0.5 * (yz.bmm(dz) - y.bmm(dy).bmm(y) - dz.bmm(zy)),
            )
        da = 0.5 * (dy.bmm(three - normalized) - dz - normalized.bmm(dy))
        da = da.transpose(1, 2)
        by_trace = by_trace - _inner(da, matrices) / trace**2
        return da / trace + by_trace * torch.eye(matrices.shape[1]), None


def _trace(matrices):
    return matrices.diagonal(dim1=1, dim2=2).sum(dim=1).view(-1, 1, 1)


def _three(matrices):
    return 3.0 * torch.eye(matrices.shape[1]).expand_as(matrices)


def _inner(first, second):
    return (first * second).sum(dim=(1, 2)).view(-1, 1, 1)
