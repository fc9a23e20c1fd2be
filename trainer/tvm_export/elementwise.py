"""Element-wise operations as vector expressions: no calls into libm, which would run lane by lane."""

from collections.abc import Callable
from typing import Any

from tvm import tirx

Expression = Any


def _splat(value: float, lanes: int) -> Expression:
    constant = tirx.const(value, "float32")
    return tirx.Broadcast(constant, lanes) if lanes > 1 else constant


def _polynomial(lanes: int, x: Expression, coefficients: tuple[float, ...]) -> Expression:
    """Horner's rule, highest power first."""
    result = _splat(coefficients[0], lanes)
    for coefficient in coefficients[1:]:
        result = result * x + _splat(coefficient, lanes)
    return result


# Rational approximations of Eigen (generic_fast_tanh_float, erf_float), error below 4 units in the last place.
_TANH_ODD = (
    -2.76076847742355e-16, 2.00018790482477e-13, -8.60467152213735e-11, 5.12229709037114e-08,
    1.48572235717979e-05, 6.37261928875436e-04, 4.89352455891786e-03,
)  # fmt: skip
_TANH_EVEN = (1.19825839466702e-06, 1.18534705686654e-04, 2.26843463243900e-03, 4.89352518554385e-03)
_ERF_ODD = (
    -2.72614225801306e-10, 2.77068142495902e-08, -2.10102402082508e-06, -5.69250639462346e-05,
    -7.34990630326855e-04, -2.95459980854025e-03, -1.60960333262415e-02,
)  # fmt: skip
_ERF_EVEN = (
    -1.45660718464996e-05, -2.13374055278905e-04, -1.68282697438203e-03, -7.37332916720468e-03, -1.42647390514189e-02,
)  # fmt: skip


def _rational(lanes: int, x: Expression, limit: float, odd: tuple[float, ...], even: tuple[float, ...]) -> Expression:
    clamped = tirx.max(tirx.min(x, _splat(limit, lanes)), _splat(-limit, lanes))
    square = clamped * clamped
    return clamped * _polynomial(lanes, square, odd) / _polynomial(lanes, square, even)


def tanh(lanes: int, x: Expression) -> Expression:
    """Hyperbolic tangent."""
    return _rational(lanes, x, 7.90531110763549805, _TANH_ODD, _TANH_EVEN)


def erf(lanes: int, x: Expression) -> Expression:
    """Error function."""
    return _rational(lanes, x, 4.0, _ERF_ODD, _ERF_EVEN)


def sigmoid(lanes: int, x: Expression) -> Expression:
    """Logistic function, 1/2 + tanh(x/2)/2."""
    half = _splat(0.5, lanes)
    return half + half * tanh(lanes, x * half)


def gelu(lanes: int, x: Expression) -> Expression:
    """Gaussian error linear unit: x * Phi(x), Phi the normal distribution."""
    half = _splat(0.5, lanes)
    return x * half * (_splat(1.0, lanes) + erf(lanes, x * _splat(0.7071067811865476, lanes)))


def gelu_tanh(lanes: int, x: Expression) -> Expression:
    """GELU's tanh approximation."""
    inner = _splat(0.7978845608028654, lanes) * (x + _splat(0.044715, lanes) * x * x * x)
    return x * _splat(0.5, lanes) * (_splat(1.0, lanes) + tanh(lanes, inner))


OPERATIONS: dict[str, Callable[..., Expression]] = {
    "identity": lambda _, x: x,
    "relu": lambda lanes, x: tirx.max(x, _splat(0.0, lanes)),
    "negative": lambda lanes, x: _splat(0.0, lanes) - x,
    "sigmoid": sigmoid,
    "tanh": tanh,
    "erf": erf,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "exp": lambda _, x: tirx.exp(x),
    "add": lambda _, x, y: x + y,
    "subtract": lambda _, x, y: x - y,
    "multiply": lambda _, x, y: x * y,
    "divide": lambda _, x, y: x / y,
    "maximum": lambda _, x, y: tirx.max(x, y),
    "minimum": lambda _, x, y: tirx.min(x, y),
}
