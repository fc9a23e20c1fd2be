"""Values of which every frame makes several: nobody may change them, and that costs nothing at run time."""

from dataclasses import dataclass
from typing import TypeVar, dataclass_transform

Value = TypeVar("Value")


@dataclass_transform(frozen_default=True)
def value(cls: type[Value]) -> type[Value]:
    """A slotted dataclass that mypy holds frozen. dataclass(frozen=True) takes 0.1 us more for each field of each."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
