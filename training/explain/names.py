"""Names of the command's choices, without the libraries behind them."""

# Method -> its title on pictures.
TITLES = {
    "grad_cam": "Grad-CAM",
    "grad_cam_plus_plus": "Grad-CAM++",
    "cam": "CAM",
    "rollout": "attention rollout",
    "occlusion": "occlusion",
}
# Maps that the model itself returns, or Grad-CAM where there are none.
AUTO = "auto"
METHODS = (AUTO, *TITLES)
# Methods on the features of a layer.
ON_A_LAYER = ("grad_cam", "grad_cam_plus_plus")
