"""Members of an ensemble that are candidates of the project too: named there, and fitted once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tamiz.classifiers import check_params
from tamiz.config import CandidateConfig
from tamiz.errors import ConfigError, one_of

__all__ = ["ENSEMBLE", "named", "shared"]

ENSEMBLE = "ensemble"
_NAME = "candidate"


def named(candidates: Sequence[CandidateConfig]) -> list[CandidateConfig]:
    """Return the candidates with each `{candidate: NAME}` among members replaced by what that candidate is.

    Raises:
        ConfigError: no candidate has this name, it is an ensemble itself, or its texts are prepared otherwise.
    """
    others = {one.title: one for one in candidates if one.family != ENSEMBLE}
    return [_resolved(one, others) if one.family == ENSEMBLE else one for one in candidates]


def _resolved(config: CandidateConfig, others: dict[str, CandidateConfig]) -> CandidateConfig:
    members = config.params.get("members")
    if not isinstance(members, list):
        return config
    found = [_member(config, one, others) if isinstance(one, dict) and _NAME in one else one for one in members]
    return config.model_copy(update={"params": {**config.params, "members": found}})


def _member(config: CandidateConfig, member: dict[str, Any], others: dict[str, CandidateConfig]) -> dict[str, Any]:
    if len(member) > 1:
        raise ConfigError(f"{config.title}: a member has {_NAME!r} alone, or family, params and prepare")
    name = str(member[_NAME])
    if name not in others:
        raise ConfigError(f"{config.title}: no other candidate is called {name!r}; {one_of(name, others)}")
    other, first = others[name], len(config.prepare)
    if other.prepare[:first] != config.prepare:
        raise ConfigError(
            f"{config.title}: prepares texts as {config.prepare}, which {name} does not begin with; set `prepare: []`"
        )
    return {"family": other.family, "params": other.params, "prepare": other.prepare[first:]}


def shared(config: CandidateConfig, candidates: Sequence[CandidateConfig]) -> dict[int, CandidateConfig]:
    """Return the members, by place, that learn as a candidate of the project does from the same texts.

    With `conformal` a fit sees less of validation, so that one without is another.
    """
    if config.family != ENSEMBLE:
        return {}
    alike = [one for one in candidates if (one.conformal is None) == (config.conformal is None)]
    known = {_learns(one.family, one.params, one.prepare): one for one in alike if one.family != ENSEMBLE}
    members = check_params(config.family, config.params)["members"]
    learnt = [_learns(one["family"], one["params"], [*config.prepare, *one["prepare"]]) for one in members]
    return {place: known[key] for place, key in enumerate(learnt) if key in known}


def _learns(family: str, params: dict[str, Any], prepare: Sequence[Any]) -> str:
    """Return what a fit depends on, besides texts and seed."""
    return repr((family, sorted(check_params(family, params).items()), list(prepare)))
