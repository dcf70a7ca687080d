"""Maps of captum and pytorch-grad-cam, in a process of their own.

Run as `python torch_maps.py GIVEN.npz FOUND.npz`.
"""

import sys

import numpy as np
import torch
from captum.attr import IntegratedGradients, Saliency
from pytorch_grad_cam import (
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

METHODS = {
    "grad_cam": GradCAM,
    "grad_cam_plus_plus": GradCAMPlusPlus,
    "hires_cam": HiResCAM,
    "layer_cam": LayerCAM,
    "score_cam": ScoreCAM,
}


class Network(torch.nn.Module):
    """Two convolutions, the mean, a hidden layer and a linear one."""

    def __init__(self, weights):
        super().__init__()
        kernels = [torch.tensor(each) for each in weights]
        self.first = convolution(kernels[0], kernels[1])
        self.second = convolution(kernels[2], kernels[3])
        self.hidden, self.last = kernels[4:6], kernels[6:8]
        # Modules, so that targets of hooks are their outputs.
        self.relu = torch.nn.ReLU()
        self.features = torch.nn.ReLU()

    def forward(self, images):
        x = self.features(self.second(self.relu(self.first(images))))
        x = x.amax(dim=3).mean(dim=2)
        x = torch.tanh(x @ self.hidden[0] + self.hidden[1])
        return x @ self.last[0] + self.last[1]


def convolution(kernel, bias):
    height, width, inputs, outputs = kernel.shape
    layer = torch.nn.Conv2d(inputs, outputs, (height, width), padding="same")
    layer.weight = torch.nn.Parameter(kernel.permute(3, 2, 0, 1))
    layer.bias = torch.nn.Parameter(bias)
    return layer


def main(given, found):
    given = dict(np.load(given))
    weights = [given[f"weight_{index}"] for index in range(8)]
    network = Network(weights).eval()
    images = torch.tensor(given["images"]).permute(0, 3, 1, 2)
    labels = given["labels"].tolist()
    results = {}
    for name, method in METHODS.items():
        cam = method(network, [network.features])
        targets = [ClassifierOutputTarget(label) for label in labels]
        results[name] = cam(input_tensor=images, targets=targets)
    finer = FinerCAM(network, [network.features])
    results["finer_cam"] = finer(input_tensor=images)
    target = torch.tensor(labels)
    shares = IntegratedGradients(network).attribute(
        images, target=target, n_steps=6, method="riemann_middle", baselines=0.2
    )
    results["integrated_gradients"] = shares.sum(dim=1).detach().numpy()
    slopes = [
        Saliency(network).attribute(noisy, target=target, abs=False)
        for noisy in torch.tensor(given["noisy"]).permute(0, 1, 4, 2, 3)
    ]
    results["smooth_grad"] = torch.stack(slopes).mean(0).abs().sum(1).numpy()
    np.savez(found, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
