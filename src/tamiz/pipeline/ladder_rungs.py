"""The rungs of a ladder: the project's candidates, fitted on labelled texts, measured on those drawn at random."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tamiz.classifiers import check_params
from tamiz.classifiers.base import prefixed, remembering
from tamiz.classifiers.few_shot import FewShotClassifier
from tamiz.classifiers.zero_shot import ZeroShotClassifier
from tamiz.cleaning import Cleaner
from tamiz.config import CandidateConfig, Project
from tamiz.data.gold import Examples
from tamiz.data.near_duplicates import clusters
from tamiz.decision import Calibrator, DecisionRule
from tamiz.metrics import share_interval
from tamiz.model import Model
from tamiz.pipeline import members
from tamiz.pipeline.inputs import encoders_of
from tamiz.pipeline.ladder_compare import Against, Answering, climb, folds, right_counts
from tamiz.pipeline.ladder_state import State, place_of
from tamiz.pipeline.ladder_suggest import FEWEST
from tamiz.pipeline.train import fit_classifier, put_together
from tamiz.types import Classifier, FloatArray, IntArray, Progress, Task

__all__ = ["Rungs"]

_ZERO_SHOT = "zero_shot"
_MEASURED = 10  # texts drawn at random, below which nothing is compared
_FEW, _REPEATS = 100, 3  # below so many texts drawn at random, so many divisions into folds
_MOST_TEXTS = 5000  # from which those that adapt labels and correct the prior are drawn


class Rungs:
    """The candidates of a project, from the lightest to the heaviest, and what they learn from.

    Args:
        project: its candidates are the rungs.
        state: labels and seed.
        texts: all texts, raw.
        progress: told how far a fit is.

    Raises:
        ConfigError: a member of an ensemble or a parameter is wrong.
    """

    def __init__(self, project: Project, state: State, texts: Sequence[str], progress: Progress | None = None) -> None:
        self._project, self._state, self._progress = project, state, progress
        self._configs = {one.title: one for one in members.named(project.candidates)}
        for one in self._configs.values():
            check_params(one.family, one.params)
        self.names = list(self._configs)
        """Names of the rungs, lightest first."""
        self._texts = texts
        held = list(state.current().values())
        self._clean = Cleaner(project.clean)
        self._learnt = self._clean.many([texts[place_of(one.id)] for one in held])
        self._targets = _targets(state)
        self._measured = np.flatnonzero([one.random for one in held])
        self._models: dict[str, Model] = {}
        self._asked: dict[str, Model] = {}

    def config_key(self, name: str) -> str:
        """Return what a rung is, as text."""
        config = self._configs[name]
        about = [config.model_dump(mode="json"), encoders_of(config.params), self._project.clean]
        return json.dumps(about, sort_keys=True, default=str)

    def learns(self, name: str) -> bool:
        """Tell whether a rung learns from labels."""
        return self._configs[name].family != _ZERO_SHOT

    # --- models

    def model(self, name: str) -> Model:
        """Return the model of a rung, which has learnt from all labelled texts."""
        if name not in self._models:
            self._models[name] = self._made(self._configs[name])
        return self._models[name]

    def asked(self, name: str) -> Model:
        """Return the model of a rung to ask about the ladder's texts, each of which its encoder reads once."""
        if name not in self._asked:
            self._asked[name] = self.model(name).remembering()
        return self._asked[name]

    def _made(self, config: CandidateConfig) -> Model:
        state, metrics = self._state, {}
        if config.family == _ZERO_SHOT:
            classifier: Any = self._zero_shot(config)
        else:
            examples = Examples([], self._learnt, self._targets, [], {})
            about: dict[str, Any] = {"seed": state.seed, "progress": prefixed(self._progress, config.title)}
            classifier, metrics["fit_seconds"] = fit_classifier(
                config, state.labels, state.task, examples, None, **about
            )
        none = Calibrator("none", state.task, reason="no labelled texts are held out")
        about = {"text_column": self._project.data.text, "metrics": metrics}
        about["data"] = {"texts": len(self._learnt) if self.learns(config.title) else 0}
        rule = DecisionRule(state.task)
        return put_together(self._project.name, config, classifier, self._clean, none, rule, **about)

    def _zero_shot(self, config: CandidateConfig) -> ZeroShotClassifier:
        made = ZeroShotClassifier(self._state.labels, self._state.task, seed=self._state.seed, **config.params)
        made.prepare(prefixed(self._progress, config.title))
        if not made.params.of_texts:
            return made
        order = np.random.default_rng(self._state.seed).permutation(len(self._texts))[:_MOST_TEXTS]
        some = [self._texts[place] for place in np.sort(order).tolist()]
        return made.settle(Cleaner(config.prepare).many(self._clean.many(some)), self._progress)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return vectors `(n, d)` of raw texts by the encoder of the few-shot rung, as its fits have them."""
        few_shot = FewShotClassifier(self._state.labels, self._state.task, **self._encoding())
        return few_shot.prepare(self._progress)(self._clean.many(texts), self._progress)

    def _encoding(self) -> dict[str, Any]:
        """Return the few-shot rung's parameters; without one, those with the encoder of zero-shot."""
        for one in self._configs.values():
            if one.family == "few_shot":
                return one.params
        models = [
            one.params["model"]
            for one in self._configs.values()
            if one.family == _ZERO_SHOT and one.params.get("method") != "entailment" and one.params.get("model")
        ]
        return {"encoder": models[0]} if models else {}

    # --- decisions

    def decide(self, state: State) -> dict[str, Any]:
        """Compare the rungs on labelled texts drawn at random, and say which to use.

        Returns:
            A record: `rung`, `before`, `verdict` (`up`, `down`, `stay` or `too_few`), `reason`, what was measured,
            share of right answers a rung with interval, and every comparison.
        """
        n = len(self._measured)
        record: dict[str, Any] = {
            "before": state.rung,
            "labelled": len(self._learnt),
            "drawn_at_random": n,
            "alpha": state.alpha,
            "seed": state.seed,
        }
        repeats = _REPEATS if n < _FEW else 1
        reason = self._lacking()
        near = clusters(self._learnt) if self._project.split.near_duplicates else None
        divisions = None if reason else self._divisions(repeats, near)
        if divisions is None:
            why = reason or "a label has too few texts to be learnt from in every fold"
            return {**record, "rung": state.rung, "verdict": "too_few", "reason": why}
        answering = self._answering(sum(map(len, divisions)))
        rights = right_counts(answering, self._targets, self._measured, divisions, state.task, near=near)
        found = climb(state.rung, rights, repeats, state.alpha)
        up = self.names.index(found.rung) - self.names.index(state.rung)
        return {
            **record,
            "rung": found.rung,
            "verdict": "up" if up > 0 else "down" if up < 0 else "stay",
            "reason": _reason(found.rung, state.rung, found.rounds[-1], up),
            "folds": len(divisions[0]),
            "repeats": repeats,
            "right": {name: _share(counts, repeats) for name, counts in rights.items()},
            "comparisons": [[one.to_dict() for one in compared] for compared in found.rounds],
        }

    def _lacking(self) -> str:
        """Say what is lacking for a comparison; nothing where nothing is."""
        if len(self._measured) < _MEASURED:
            return f"{len(self._measured)} labelled texts are drawn at random; {_MEASURED} are needed to compare"
        k, several = len(self._state.labels), self._state.task is Task.MULTI_LABEL
        counts = self._targets.sum(axis=0) if several else np.bincount(self._targets, minlength=k)
        few = [(label, int(one)) for label, one in zip(self._state.labels, counts, strict=True) if one < FEWEST]
        # Some labels are rare for long, or for ever; what cannot be learnt of them counts against the rungs that learn.
        if not few or (not several and k - len(few) >= max(2, k / 2)):
            return ""
        more = f" (and {len(few) - 1} labels more)" if len(few) > 1 else ""
        return f"{few[0][0]!r} has {few[0][1]} labelled texts{more}; {FEWEST} are needed to learn and to measure"

    def _divisions(self, repeats: int, near: IntArray | None) -> list[list[IntArray]] | None:
        seeds = [self._state.seed + turn for turn in range(repeats)]
        found = [folds(self._targets, self._measured, seed=seed, near=near) for seed in seeds]
        whole = [one for one in found if one is not None]
        return whole if len(whole) == repeats else None

    def _answering(self, folds_in_all: int) -> Answering:
        """Return what fits every rung anew for each fold; members that rungs share are fitted once."""
        done = 0
        said = {name: self._answers(self.asked(name)) for name in self.names if not self.learns(name)}

        def answering(learnt: IntArray, held: IntArray) -> dict[str, FloatArray]:
            nonlocal done
            examples = Examples([], [self._learnt[place] for place in learnt], self._targets[learnt], [], {})
            asked = [self._learnt[place] for place in held]
            fitted: dict[str, Classifier] = {}
            for name, config in self._configs.items():
                if name not in said:
                    fitted[name] = self._fitted(config, examples, fitted)
            done += 1
            if self._progress:
                self._progress("comparing the rungs", done, folds_in_all)
            found = {name: every[held] for name, every in said.items()}
            for name, one in fitted.items():
                found[name] = remembering(one).predict_proba(Cleaner(self._configs[name].prepare).many(asked))
            return {name: found[name] for name in self.names}

        return answering

    def _answers(self, model: Model) -> FloatArray:
        return model.classifier.predict_proba(model.prepare.many(self._learnt))

    def _fitted(self, config: CandidateConfig, examples: Examples, others: Mapping[str, Classifier]) -> Classifier:
        """Fit a rung; an ensemble takes members that were fitted already."""
        shared = members.shared(config, list(self._configs.values()))
        known = {place: others[one.title] for place, one in shared.items() if one.title in others}
        state = self._state
        about: dict[str, Any] = {"seed": state.seed, "members": known}
        return fit_classifier(config, state.labels, state.task, examples, None, **about)[0]


def _targets(state: State) -> NDArray[Any]:
    """Return int64 `(n,)`; multi-label: bool `(n, k)`."""
    held = [one.labels for one in state.current().values()]
    if state.task is Task.MULTI_LABEL:
        return np.array([[label in one for label in state.labels] for one in held], np.bool_).reshape(
            len(held), len(state.labels)
        )
    return np.array([state.labels.index(one[0]) for one in held], np.int64)


def _share(counts: IntArray, repeats: int) -> dict[str, Any]:
    """Return the share of right answers with its 95 % interval."""
    share, n = float(counts.mean() / repeats), len(counts)
    return {"value": share, "interval": list(share_interval(round(share * n), n))}


def _reason(rung: str, before: str, compared: Sequence[Against], up: int) -> str:
    if up:
        return f"{rung} is {'heavier' if up > 0 else 'lighter'} than {before} and surely better"
    ahead = [one for one in compared if one.more_texts is not None]
    if not ahead:
        return f"no other rung gives more right answers than {rung}"
    best = min(ahead, key=lambda one: one.more_texts or 0)
    return (
        f"{best.rung} is right on {best.right:.1%} and {rung} on {best.current_right:.1%}, which may be chance; "
        f"about {best.more_texts} more texts drawn at random would tell"
    )
