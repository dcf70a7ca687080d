"""A recipe's images and labels, described, with their attention maps."""
