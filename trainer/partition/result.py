"""What the partition step answers: which student imitates which filters, and how good that split is."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from edge_agent.console.exit_codes import UserError

SCHEMA = 1


@dataclass(frozen=True)
class Partition:
    """K disjoint sets that cover every filter; `filters[k]` is sorted and belongs to student k."""

    filters: tuple[tuple[int, ...], ...]
    method: str
    seed: int
    resolution: float | None  # of the Louvain run that won the sweep; None for the controls
    communities: int  # found by that run, before balancing; 0 for the controls
    community_modularity: float  # of those communities, resolution 1
    modularity: float  # of `filters`, resolution 1
    balance: float  # smallest size / largest size, 1 is even
    activity_share: tuple[float, ...]  # of all activity, per student; empty when no activity was given
    hubs: tuple[tuple[int, ...], ...]  # per student, strongest first by weighted degree in the whole graph
    hub_degrees: tuple[tuple[float, ...], ...]  # their weighted degrees, as a share of the graph's largest
    note: str  # what the user should know, empty when nothing

    def __post_init__(self) -> None:
        everything = sorted(f for part in self.filters for f in part)
        if not everything or everything != list(range(len(everything))) or not all(self.filters):
            raise UserError("a partition must hold every filter exactly once and leave no student empty")
        if any(list(part) != sorted(part) for part in self.filters):
            raise UserError("a partition must list each student's filters in rising order")

    @property
    def students(self) -> int:
        """K."""
        return len(self.filters)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Filters per student, which is also each student's feature width."""
        return tuple(len(part) for part in self.filters)

    @property
    def student_of(self) -> tuple[int, ...]:
        """The student of each filter, in filter order."""
        owner = {f: student for student, part in enumerate(self.filters) for f in part}
        return tuple(owner[f] for f in range(len(owner)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {"schema": SCHEMA, **{key: _as_lists(value) for key, value in asdict(self).items()}}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """The partition that `to_dict` wrote; UserError for anything else."""
        if not isinstance(content, dict) or content.get("schema") != SCHEMA:
            raise UserError(f"not a partition of schema {SCHEMA}: expected what the partition stage writes")
        names = {field.name for field in fields(cls)}
        if set(content) != names | {"schema"}:
            raise UserError(f"a partition has the keys {sorted(names)}; found {sorted(set(content) - {'schema'})}")
        try:
            return cls(**{name: _as_tuples(content[name]) for name in names})
        except TypeError as error:
            raise UserError(f"a partition's values have the wrong types ({error})") from None


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(item) for item in value) if isinstance(value, list) else value
