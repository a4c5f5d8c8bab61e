"""The evaluation protocols, by name."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from attengait.errors import AttenGaitError
from attengait.evaluation.casia_b import CASIA_B, evaluate_casia_b
from attengait.evaluation.cross_view import CROSS_VIEW, evaluate_cross_view
from attengait.evaluation.distances import DISTANCES
from attengait.evaluation.embeddings import Embeddings
from attengait.evaluation.names import Names, one_name_for_each_view
from attengait.evaluation.result import EvaluationResult
from attengait.evaluation.roles import Roles
from attengait.sampling.selection import some_of
from attengait.system.lookup import look_up

_NUM_NAMES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Protocol:
    """How people are to be recognised: which walks are compared with which, and what is measured."""

    roles: Roles
    evaluate: Callable[[Embeddings, str], EvaluationResult]
    """Embeddings and the name of a distance to figures."""


PROTOCOLS: dict[str, Protocol] = {
    "casia-b": Protocol(roles=CASIA_B, evaluate=evaluate_casia_b),
    "casia-b-cross-view": Protocol(roles=CROSS_VIEW, evaluate=evaluate_cross_view),
}


def check_names(protocol: str, distance: str) -> None:
    """Refuse an unknown protocol or distance (ParameterError) before hours of embedding."""
    look_up(PROTOCOLS, protocol, "protocol")
    look_up(DISTANCES, distance, "distance")


def check_fit(protocol: str, walks: NDArray[Any], views: NDArray[Any], *, where: str) -> None:
    """Refuse sequences of which the named protocol can compare none (AttenGaitError), before hours of embedding.

    `walks` [n] and `views` [n] are those of the sequences, `where` says in the sentence where they are. The sentence
    names the protocols that fit.
    """
    texts: Names = np.array([str(walk) for walk in walks.tolist()], dtype=np.str_)
    names = one_name_for_each_view(views)
    roles = look_up(PROTOCOLS, protocol, "protocol").roles
    if roles.fit(texts, names):
        return
    fitting = [name for name, other in PROTOCOLS.items() if other.roles.fit(texts, names)]
    found = (
        f"the {len(texts)} sequences there have the walks {some_of(np.unique(texts).tolist(), _NUM_NAMES)} and the "
        f"views {some_of(np.unique(names).tolist(), _NUM_NAMES)}"
    )
    raise AttenGaitError(
        f"protocol {protocol} fits no sequence of {where}: it compares probes {', '.join(roles.probe_walks)} with the "
        f"gallery {', '.join(roles.gallery)} at other views, but {found if len(texts) else 'there are no sequences'}; "
        f"{', '.join(fitting) or 'none of ' + ', '.join(PROTOCOLS)} fits"
    )


def evaluate_embeddings(embeddings: Embeddings, *, protocol: str = "casia-b", distance: str = "l2") -> EvaluationResult:
    """Evaluate by the named protocol and distance.

    ParameterError for an unknown one, AttenGaitError where the protocol fits no sequence.
    """
    check_names(protocol, distance)
    check_fit(protocol, embeddings.sequences, embeddings.views, where="the embeddings")
    return replace(PROTOCOLS[protocol].evaluate(embeddings, distance), precision=embeddings.precision)
