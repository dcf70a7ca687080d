"""Names of the command's choices, without the libraries behind them."""

# Method -> its title on pictures.
TITLES = {
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "finer_cam": "Finer-CAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "score_cam": "Score-CAM",
    "cam": "CAM",
    "legrad": "LeGrad",
    "gradient_rollout": "gradient-weighted rollout",
    "rollout": "attention rollout",
    "integrated_gradients": "integrated gradients",
    "smooth_grad": "SmoothGrad",
    "occlusion": "occlusion",
}
# Maps that the model itself returns, or Grad-CAM where there are none.
AUTO = "auto"
METHODS = (AUTO, *TITLES)
# Every method that a model has maps of, in a comparison.
ALL = "all"
# Methods on the features of a layer.
ON_A_LAYER = (
    "grad_cam",
    "grad_cam_plus_plus",
    "finer_cam",
    "hires_cam",
    "layer_cam",
    "score_cam",
)
# Methods of many passes of the network per image, which show their progress.
IN_PASSES = ("score_cam", "integrated_gradients", "smooth_grad", "occlusion")
