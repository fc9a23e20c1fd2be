"""SGD with Nesterov momentum and L2 weight decay, as the papers on these networks use it."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

MOMENTUM = 0.9


class NesterovSgd:
    """Decay is added to the gradient (Keras' own `weight_decay` would act outside the momentum, ten times weaker)."""

    def __init__(self, trainable: Sequence[Any], weight_decay: float) -> None:
        self._trainable = list(trainable)
        self._decay = weight_decay
        self._optimizer = keras.optimizers.SGD(0.0, momentum=MOMENTUM, nesterov=True)
        self._optimizer.build(self._trainable)

    @property
    def variables(self) -> list[Any]:
        """State to keep in checkpoints."""
        return list(self._optimizer.variables)

    def set_rate(self, rate: Any) -> None:
        """Learning rate of the next update; to be called outside of replicas."""
        self._optimizer.learning_rate.assign(rate)

    def apply(self, gradients: Sequence[Any], replicas: int = 1) -> None:
        """One update; biases and BN parameters (vectors) are not decayed.

        Keras sums over `replicas`, each of which saw an equal share of the batch: a replica gives its mean over them.
        """
        decayed = [
            gradient + self._decay * tf.cast(variable, gradient.dtype) if len(variable.shape) > 1 else gradient
            for gradient, variable in zip(gradients, self._trainable, strict=True)
        ]
        if replicas > 1:
            decayed = [gradient / replicas for gradient in decayed]
        self._optimizer.apply_gradients(zip(decayed, self._trainable, strict=True))
