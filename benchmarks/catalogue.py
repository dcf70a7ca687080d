"""The comparisons and their targets; imports no backend."""

import dataclasses

ALL_BACKENDS = ("tensorflow", "jax", "torch")


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound on a case's ratio: `relation` is `<=` or `>=`."""

    relation: str
    bound: float

    def verdict(self, ratio):
        met = ratio <= self.bound if self.relation == "<=" else ratio >= self.bound
        return f"{self.relation} {self.bound:.2f}: {'met' if met else 'MISSED'}"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One comparison, measured by `benchmarks/NAME.py` in a process per backend.

    Args:
        backends: Keras backends to measure it on.
        ratio: Meaning of the ratios of its cases.
        targets: Dict from a case to its `Target`.
    """

    backends: tuple
    ratio: str
    targets: dict


BENCHMARKS = {
    "step_time": Benchmark(
        ALL_BACKENDS,
        "time of a training step of RN26 (32x32, batch 128), relative to `baseline`",
        {"class_embedding": Target("<=", 1.1)},
    ),
    "input_pipeline": Benchmark(
        ("tensorflow",),
        "images per second, relative to what the training step of RN26 consumes",
        {
            "pipeline, batch 128": Target(">=", 3.0),
            "pipeline, batch 32": Target(">=", 3.0),
        },
    ),
    "shards": Benchmark(
        ("tensorflow",),
        "images per second, relative to the `folder`; seconds and memory of a million "
        "images, as a share of 30 s and 1 GB",
        {
            "tar, in random order": Target(">=", 1.0),
            "folder, 1000000 listed, s": Target("<=", 1.0),
            "folder, 1000000 listed, MB": Target("<=", 1.0),
            "tar, 1000000 listed, s": Target("<=", 1.0),
            "tar, 1000000 listed, MB": Target("<=", 1.0),
        },
    ),
    "bulk": Benchmark(
        ("tensorflow",),
        "images per second, relative to the single process; seconds and memory of "
        "planning a million images, as a share of 30 s and 1 GB",
        {
            "maps of ViT-S/8, single process, with a plan": Target(">=", 0.97),
            "descriptors of ViT-S/16, single process, with a plan": Target(">=", 0.97),
            "1000000 files listed and planned, s": Target("<=", 1.0),
            "1000000 files listed and planned, MB": Target("<=", 1.0),
        },
    ),
    "soft_maximizers": Benchmark(
        ALL_BACKENDS,
        "time of forward and backward pass on 32x32x32x64, relative to `bn_relu`",
        {},
    ),
    "perturbed_memory": Benchmark(
        ALL_BACKENDS,
        "peak host memory of a forward and backward pass of PerturbedArgmax "
        "(600 samples on 8x32x32x64), as a share of 2 GB",
        {
            "growth": Target("<=", 1.0),
            "whole process": Target("<=", 1.0),
        },
    ),
    "patch_selection": Benchmark(
        ALL_BACKENDS,
        "time of choosing 10 patches on 256 maps of 17x17, how many times faster than "
        "`Python loop`",
        {"batched, compiled": Target(">=", 100.0)},
    ),
    "anchornet_speed": Benchmark(
        ALL_BACKENDS,
        "images per second of AnchorNet (224x224, 1000 classes), relative to the same "
        "without XLA; with Keras's convolutions, relative to ours",
        {},
    ),
    "patches_against_full_image": Benchmark(
        ("tensorflow",),
        "images per second of ResNet-50, batch 16, localiser and cropping included, "
        "relative to `full image` (224x224)",
        {"patches, folded": Target(">=", 1.5), "early exit, folded": Target(">=", 1.5)},
    ),
    "volumetric_transformer": Benchmark(
        ALL_BACKENDS,
        "time of forward and backward pass on 8x14x14x2048, relative to "
        "`volumetric_transformer`",
        {
            "loop over groups": Target(">=", 10.0),
            # At most 15 % of it.
            "ResNet-50, 448x448": Target(">=", 6.67),
        },
    ),
    "volumetric_memory": Benchmark(
        ALL_BACKENDS,
        "peak host memory that a forward and backward pass adds (batch 8), relative to "
        "the map itself",
        {},
    ),
    "attention_maps": Benchmark(
        ALL_BACKENDS,
        "attention maps per second at 224x224, relative to the faster plain PyTorch of "
        "the same type in the same process",
        {
            "ViT-S/8, float32, map": Target(">=", 1.3),
            "ViT-S/8, bfloat16, map": Target(">=", 1.0),
        },
    ),
    "mask_cache": Benchmark(
        ("tensorflow",),
        "time for a batch of ResNet8 (224x224), relative to a training step with masks",
        {"maps from the cache": Target("<=", 0.1)},
    ),
    "serving": Benchmark(
        ("tensorflow",),
        "images per second of the local server, relative to the SavedModel called "
        "directly at the same batch (RN26, 128x128); for p50, p95 and p99 the time "
        "relative to the direct median",
        {
            "gRPC, clients 32": Target(">=", 0.8),
            "REST, clients 32": Target(">=", 0.8),
        },
    ),
    "explanations": Benchmark(
        ALL_BACKENDS,
        "time of an explanation per image (224x224, batch 2), relative to the same "
        "network's `forward pass`, layer by layer",
        {},
    ),
    "second_order_pooling": Benchmark(
        ALL_BACKENDS,
        "time of forward and backward pass of iSQRT-COV (5 iterations) on 8x28x28x256, "
        "relative to `PyTorch, autograd` in the same process",
        {"isqrt_cov": Target("<=", 1.0)},
    ),
    "search": Benchmark(
        ("tensorflow",),
        "speed of finding the ten nearest of a million descriptors of 2048 numbers, "
        "how many times that of `NumPy`; recall: share of the exact ten that are found",
        {},
    ),
}
