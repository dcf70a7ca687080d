"""DINO: a network that learns without labels, from its own moving average."""

import keras
from keras import ops

from keras_attn.layers.dino_head import DinoHead
from keras_attn.losses.dino import dino_loss, next_center, teacher_entropy

GLOBAL_VIEWS, LOCAL_VIEWS = "global_views", "local_views"


@keras.saving.register_keras_serializable(package="keras_attn")
class Dino(keras.Model):
    """Self-distillation with no labels, trained by `fit` on batches of views.

    Caron et al., "Emerging Properties in Self-Supervised Vision Transformers",
    algorithm 1 with multi-crop. The student sees all views of an image, the teacher
    the global ones; the student learns to score every view as the teacher scores the
    other ones, see `keras_attn.losses.dino`. After every step each parameter of the
    teacher moves to the student's, `t <- m t + (1 - m) s`, and the centre of its
    scores to their mean. Buffers, such as the statistics of a batch normalisation, are
    each network's own. Views of one size go through a backbone in one batch, and all
    of them through the head in one.

    `teacher` is what is used afterwards. Gradient clipping, weight decay and the rest
    at the last layer are the optimizer's, see `dino_optimizer`.

    Args:
        student: Backbone, a model from images to embeddings `(batch, width)` or to a
            dict with an entry `"embedding"`. It has to take the sizes of all views;
            of a functional model the layers have to, whatever size it was made for.
        teacher: Backbone of the same weights, made without drop path. It starts as a
            copy of the student, and its weights are no longer trainable.
        head: Dict of arguments of the two heads, see `DinoHead`.
        student_temperature: tau_s.
        teacher_temperature: tau_t, a number or a schedule over the steps.
        teacher_momentum: m, a number or a schedule over the steps.
        center_momentum: Momentum of the centre.

    Call arguments:
        inputs: Dict of `"global_views"`, `(batch, views, height, width, 3)`, and, if
            there are any, `"local_views"`, of another size.

    Returns:
        Dict of the scores `"student"`, `(batch, views, units)`, and `"teacher"`,
        `(batch, global views, units)`.

    Raises:
        ValueError: If the backbones differ in the shapes of their weights, or return
            no embeddings.

    Example:

    >>> def backbone():
    ...     images = keras.Input((None, None, 3))
    ...     x = keras.layers.Conv2D(8, 4, 4)(images)
    ...     return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))
    >>> model = Dino(backbone(), backbone(), head={"units": 64, "hidden_units": 16})
    >>> views = {"global_views": np.zeros((5, 2, 32, 32, 3), "float32")}
    >>> model(views)["student"].shape
    (5, 2, 64)
    """

    def __init__(
        self,
        student,
        teacher,
        head=None,
        student_temperature=0.1,
        teacher_temperature=0.04,
        teacher_momentum=0.996,
        center_momentum=0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.student, self.teacher = student, teacher
        self.head = dict(head or {})
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.teacher_momentum = teacher_momentum
        self.center_momentum = center_momentum
        width = _embedding(student.output).shape[-1]
        policy = self.dtype_policy
        self.student_head = DinoHead(**self.head, dtype=policy, name="student_head")
        self.teacher_head = DinoHead(**self.head, dtype=policy, name="teacher_head")
        for network in (self.student_head, self.teacher_head):
            network.build((None, width))
        self._start_teacher()
        self.center = self.add_weight(
            shape=(self.student_head.units,),
            initializer="zeros",
            trainable=False,
            # Over the whole batch where several devices share it.
            aggregation="mean",
            name="center",
        )
        self.steps = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            aggregation="only_first_replica",
            name="steps",
        )
        self.entropy_tracker = keras.metrics.Mean(name="teacher_entropy")
        self.built = True

    def _start_teacher(self):
        pairs = (
            (self.student, self.teacher),
            (self.student_head, self.teacher_head),
        )
        self.averaged = []
        for student, teacher in pairs:
            shapes = [
                [tuple(w.shape) for w in net.weights] for net in (student, teacher)
            ]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    "Expected student and teacher with weights of the same shapes. "
                    f"Received: {len(shapes[0])} and {len(shapes[1])} weights, or of "
                    "other shapes"
                )
            teacher.set_weights(student.get_weights())
            for s, t in zip(student.weights, teacher.weights, strict=True):
                if s.trainable:
                    # Not `teacher.trainable`, which would stop its statistics too.
                    t.trainable = False
                    self.averaged.append((s, t))

    def call(self, inputs, training=None):
        groups = [
            inputs[name] for name in (GLOBAL_VIEWS, LOCAL_VIEWS) if name in inputs
        ]
        teacher = _scores(self.teacher, self.teacher_head, groups[:1], training)
        return {
            "student": _scores(self.student, self.student_head, groups, training),
            "teacher": ops.stop_gradient(teacher),
        }

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        """The loss of the scores `y_pred`; in training the centre moves after it."""
        del x, y, sample_weight
        teacher = y_pred["teacher"]
        temperature = _at(self.teacher_temperature, self.steps)
        center = ops.convert_to_tensor(self.center)
        loss = dino_loss(
            y_pred["student"], teacher, center, self.student_temperature, temperature
        )
        self.entropy_tracker.update_state(teacher_entropy(teacher, center, temperature))
        if training:
            self.center.assign(next_center(center, teacher, self.center_momentum))
        return sum(self.losses, loss)

    def update_teacher(self):
        """Moves the teacher towards the student, once per step."""
        momentum = _at(self.teacher_momentum, self.steps)
        for student, teacher in self.averaged:
            s, t = (ops.convert_to_tensor(value) for value in (student, teacher))
            m = ops.cast(momentum, t.dtype)
            teacher.assign(m * t + (1 - m) * ops.stop_gradient(s))
        self.steps.assign(self.steps + 1)

    def train_step(self, *args):
        if keras.backend.backend() != "jax":
            logs = super().train_step(*args)
            self.update_teacher()
            return logs
        # There a step is a function of the state.
        logs, state = super().train_step(*args)
        trainable, non_trainable, *others = state
        variables = self.trainable_variables + self.non_trainable_variables
        values = [*trainable, *non_trainable]
        with keras.StatelessScope(list(zip(variables, values, strict=True))) as scope:
            self.update_teacher()
        non_trainable = [
            scope.get_current_value(variable)
            for variable in self.non_trainable_variables
        ]
        return logs, (trainable, non_trainable, *others)

    def compute_output_shape(self, input_shape):
        counts = [input_shape[name][1] for name in input_shape]
        batch, shared = input_shape[GLOBAL_VIEWS][:2]
        units = self.student_head.units
        return {
            "student": (batch, sum(counts), units),
            "teacher": (batch, shared, units),
        }

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "student": serialize(self.student),
            "teacher": serialize(self.teacher),
            "head": self.head,
            "student_temperature": self.student_temperature,
            "teacher_temperature": serialize(self.teacher_temperature),
            "teacher_momentum": serialize(self.teacher_momentum),
            "center_momentum": self.center_momentum,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        for name in ("student", "teacher", "teacher_temperature", "teacher_momentum"):
            config[name] = keras.saving.deserialize_keras_object(
                config[name], custom_objects
            )
        return cls(**config)


def _scores(backbone, head, groups, training):
    """Scores `(batch, views, units)` of groups of views of one size each."""
    embeddings = []
    for views in groups:
        _, count, *shape = views.shape
        # Not called as a layer, which would insist on the size that it was made for.
        found = backbone.call(ops.reshape(views, (-1, *shape)), training=training)
        found = _embedding(found)
        embeddings.append(ops.reshape(found, (-1, count, found.shape[-1])))
    return head(ops.concatenate(embeddings, axis=1))


def _embedding(outputs):
    found = outputs.get("embedding") if isinstance(outputs, dict) else outputs
    if found is None or len(getattr(found, "shape", ())) != 2:
        raise ValueError(
            "Expected a backbone that returns embeddings (batch, width), or a dict "
            f"with such an entry 'embedding'. Received: {outputs}"
        )
    return found


def _at(schedule, step):
    return schedule(step) if callable(schedule) else schedule
