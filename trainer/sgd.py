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

    def apply(self, gradients: Sequence[Any], rate: Any) -> None:
        """One update at learning rate `rate`; biases and BN parameters (vectors) are not decayed."""
        decayed = [
            gradient + self._decay * tf.cast(variable, gradient.dtype) if len(variable.shape) > 1 else gradient
            for gradient, variable in zip(gradients, self._trainable, strict=True)
        ]
        self._optimizer.learning_rate.assign(rate)
        self._optimizer.apply_gradients(zip(decayed, self._trainable, strict=True))
