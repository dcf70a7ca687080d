"""Early-exit inference, one image and one stage at a time."""

import numpy as np

from tests.reference.classify_patches import cut, softmax


def early_exit(resized_logits, patch_logits_of, image, found, size, thresholds, stages):
    """Outputs for one image.

    Args:
        resized_logits: Logits of the resized image.
        patch_logits_of: Function from one patch to its logits.
        image: The image.
        found: Dict of `boxes` and `valid` of this image.
        size: `(height, width)` of its patches.
        thresholds: One for every stage but the last.
        stages: Number of stages.

    Returns:
        Dict of `logits`, `exit`, `confidence`, `predictions`.
    """
    total = np.asarray(resized_logits, "float64")
    exit_stage, over = 0, False
    confidence, predictions = [], []
    for stage in range(stages):
        if stage > 0 and not over:
            if found["valid"][stage - 1]:
                box = found["boxes"][stage - 1]
                total = total + patch_logits_of(cut(image, box, size))
                exit_stage = stage
            else:
                over = True
        confidence.append(softmax(total).max())
        predictions.append(total.argmax())
        if stage < stages - 1 and confidence[-1] > thresholds[stage]:
            over = True
    return {
        "logits": total,
        "exit": exit_stage,
        "confidence": np.array(confidence),
        "predictions": np.array(predictions),
    }
