"""What the explanations of all kinds of models can tell."""


class Explanation:
    """Base of the explanations of single images.

    They have `probabilities` of the classes, `class_names`, and the image's `title`.
    """

    def top(self, count):
        """Labels of the most probable classes."""
        return (-self.probabilities).argsort(kind="stable")[:count].tolist()

    def decision(self):
        """The image's name, its class and its probability."""
        (best,) = self.top(1)
        percent = 100 * self.probabilities[best]
        return f"{self.title}: {self.class_names[best]} ({percent:.1f} %)"
