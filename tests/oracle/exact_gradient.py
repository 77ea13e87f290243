"""The gradient of batch norm's input in decimal numbers of sixty digits, for where float64 keeps none."""

import decimal

import numpy as np


def input_gradient(x, g, weight, epsilon):
    """Of a batch x [N, C, *] that was normalised with its own moments, g being the gradient of the output: float64."""
    with decimal.localcontext() as context:
        context.prec = 60
        epsilon = decimal.Decimal(float(epsilon))
        result = np.empty(x.shape)
        for c in range(x.shape[1]):
            xs = [decimal.Decimal(float(value)) for value in x[:, c].ravel()]
            gs = [decimal.Decimal(float(value)) for value in g[:, c].ravel()]
            mean, mean_g = sum(xs) / len(xs), sum(gs) / len(gs)
            shifted = sum((value - mean) ** 2 for value in xs) / len(xs) + epsilon
            k = sum(a * (b - mean) for a, b in zip(gs, xs)) / len(xs) / shifted
            scale = decimal.Decimal(float(weight[c])) / shifted.sqrt()
            gradient = [float((a - mean_g - (b - mean) * k) * scale) for a, b in zip(gs, xs)]
            result[:, c] = np.reshape(gradient, result[:, c].shape)
    return result
