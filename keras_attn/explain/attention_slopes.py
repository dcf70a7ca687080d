"""Slopes of a class's score at the attention of every block."""

import itertools

from keras import ops

from keras_attn.explain.attention_rollout import check_tokens
from keras_attn.explain.gradients import gradient_in_float32, no_gradients
from keras_attn.explain.maps import checked_format, image_size
from keras_attn.explain.split import graph_and_score, image_index
from keras_attn.graph.flat import run
from keras_attn.graph.inside import watched_steps


class AttentionSlopes:
    """A model's call on images, whose attention can be moved.

    Attributes:
        attentions: List of `Attention`, one per block.
        objective: `Objectives`.
        images: The images, as the model takes them.

    Args:
        asked: `Asked`; its layer is not used.
    """

    def __init__(self, asked):
        any_rank = asked.target is not None
        graph, score = graph_and_score(asked.model, asked.output, any_rank)
        self._values, self._score = graph.input_values(asked.images), score
        self.images = self._values[graph.inputs[image_index(graph, asked.image_input)]]
        self._steps = graph.steps_to([score], graph.inputs)
        data_format = checked_format(asked.data_format)
        self._is_first = data_format == "channels_first"
        self.size = image_size(self.images, data_format)
        layers = [step.operation for step in self._steps]
        self._is_half = any(
            getattr(each, "compute_dtype", 0) == "float16" for each in layers
        )
        self.attentions = []
        with no_gradients():
            logits = self.logits(lambda number, found: self.attentions.append(found))
        if not self.attentions:
            raise ValueError(
                "Expected a model with attention among the patches of its images. "
                f"Received: {asked.model.name!r}, which computes none"
            )
        first = self.attentions[0].shape
        for attention in self.attentions:
            check_tokens(attention.shape, (len(self.images), *first[1:]))
        self.objective = asked.objectives(logits)

    def logits(self, on_attention, **watch):
        """Scores of the images.

        Args:
            on_attention: Function from the number of an attention and `Attention` to
                `None` or the attention in its place.
            **watch: See `keras_attn.graph.attention.Watch`.
        """
        numbers, maps = itertools.count(), []
        steps = watched_steps(
            self._steps,
            on_attention=lambda found: on_attention(next(numbers), found),
            maps=maps,
            is_first=self._is_first,
            **watch,
        )
        return run(steps, self._values, [self._score])[self._score]

    def slopes(self, function, chosen, **watch):
        """Slopes of a score at some attention, `(batch, heads, queries, keys)` each.

        Args:
            function: From scores to one number per image.
            chosen: Dict from the number of an attention, as it is computed under
                `watch`, to its shape.
            **watch: See `logits`.
        """
        places = {number: index for index, number in enumerate(chosen)}

        def score(moves):
            def moved(number, found):
                if number in places:
                    return found.rows(None) + moves[places[number]]
                return None

            logits = self.logits(moved, **watch)
            return ops.sum(function(ops.cast(logits, "float32")))

        still = [ops.zeros(shape) for shape in chosen.values()]
        return gradient_in_float32(score, still, self._is_half)
