"""`invoke check`: a baseline and its rebuilds, each from a store that holds materials alone, compared stage by stage."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertir import materials, pipeline
from bertir.compare import MEASURED, PUBLISHED
from bertir.errors import BertirError, ConfigurationError, EngineError, ReproducibilityError
from bertir.launch import launch
from bertir.machine import look_around
from bertir.prepare import Supplies, prepared
from bertir.rebuild import Order
from bertir.vary import OTHER_ID, Conditions, Means, combine, parse_names, rebuilds, variations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from bertir.builder import Builder
    from bertir.compare import Difference
    from bertir.launch import Rebuilt
    from bertir.local_checkpoint import Options
    from bertir.report import Request
    from bertir.vary import Variation
    from bertir.wanted import Wanted

MOST_TIMES = 1000


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one rebuild compares.

    Args:
        varied: names of variations; none is a rebuild with nothing varied.
        rebuilt: the stages that ran; `taken`: those that were in the store.
        without_effect: what was to be varied and was seen as before; such a rebuild proves nothing.
        measured_equal: whether what is measured, and not promised, was the same too; None if it didn't come so far.
    """

    varied: tuple[str, ...]
    rebuilt: tuple[str, ...]
    taken: tuple[str, ...]
    seconds: float
    difference: Difference | None = None
    diffoscope: str = ""
    failed: BertirError | None = None
    without_effect: tuple[str, ...] = ()
    measured_equal: bool | None = None

    @property
    def equal(self) -> bool:
        return not (self.difference or self.failed or self.without_effect)


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The baseline beside the digests that the checkout publishes."""

    file: str
    compared: int
    different: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What a check found.

    Args:
        not_done: variations that this machine can't do, with the reason.
        golden: None if the checkout publishes no digests of this build.
    """

    model: str
    request: Request
    baseline: Rebuilt
    results: tuple[Result, ...]
    not_done: Mapping[str, str] = field(default_factory=dict)
    golden: Golden | None = None

    def error(self) -> BertirError | None:
        """What is wrong, if something is: a difference before a failure, as it is what was looked for."""
        differing = [result for result in self.results if result.difference]
        if differing:
            lines = [
                f"{' + '.join(result.varied) or 'nothing varied'}: {result.difference}"
                for result in differing
            ]
            told = [f"diffoscope's report: {result.diffoscope}" for result in differing if result.diffoscope]
            several = any(len(result.varied) > 1 for result in differing)
            advice = ["`invoke check --each` says which variation it is."] if several else []
            return ReproducibilityError(
                "a rebuild gave other bits\n  " + "\n  ".join(lines), advice="\n".join([*told, *advice])
            )
        for result in self.results:
            name = " + ".join(result.varied) or "nothing varied"
            if result.failed:
                return type(result.failed)(f"{name}: {result.failed}", advice=result.failed.advice)
            if result.without_effect:
                return BertirError(
                    f"{name}: nothing was proven, as this was the same as in the baseline: "
                    + ", ".join(result.without_effect),
                    advice="Something on this machine undoes the variation; leave it out by --vary.",
                )
        if self.golden and self.golden.different:
            return ReproducibilityError(
                f"rebuilt equal here, and yet not as published in {self.golden.file}:\n  "
                + "\n  ".join(self.golden.different),
                advice="If the change is meant: invoke golden.",
            )
        return None


def check(builder: Builder, request: Request, checkpoint: Options | None, wanted: Wanted) -> Checked:
    """Build a baseline, rebuild it under variations, and compare.

    Raises:
        ConfigurationError: a variation that was asked for by name can't be done here.
        BertirError: the baseline can't be built.
    """
    pipeline.check(request)
    chosen, not_done = _choose(builder, wanted)
    if not 1 <= wanted.times <= MOST_TIMES:
        raise ConfigurationError(f"--times must be from 1 to {MOST_TIMES}, and is {wanted.times}")
    named = materials.fetch_materials(builder, None if checkpoint else request.model, request.task_data)
    supplies = Supplies(layout=builder.layout, store=builder.store, materials=named.values())
    groups = rebuilds(chosen, each=wanted.each)
    if wanted.each:
        groups.insert(0, ())  # what differs there differs whatever is varied

    def assembled(group: Sequence[Variation]) -> bool:
        return not wanted.skip_image and (not group or any(item.touches_image for item in group))

    def order(place_output: Path, *, image: bool, conditions: Conditions) -> Order:
        return Order(
            request=request,
            checkpoint=checkpoint,
            output=str(place_output),
            image=image,
            surroundings=conditions.surroundings,
        )

    with _work(builder, wanted.keep) as work:
        plain = Conditions()
        builder.progress.say("check", "building the baseline from materials alone")
        with prepared(supplies, plain, work / "baseline") as place:
            image = any(map(assembled, groups))
            baseline = launch(
                order(place.output, image=image, conditions=plain), plain, place, None
            )
        if baseline.failed:
            raise baseline.failed
        if baseline.folder is None:
            raise BertirError("the baseline published nothing")
        supplies = replace(
            supplies, published=(baseline.folder.relative_to(baseline.place.output), baseline.folder)
        )
        results = []
        for number, group in enumerate(group for group in groups for _ in range(wanted.times)):
            names = tuple(variation.name for variation in group)
            builder.progress.say("check", f"rebuilding: {', '.join(names) or 'nothing varied'}")
            conditions = combine(group)
            folder = work / f"rebuild-{number + 1}"
            with prepared(supplies, conditions, folder) as place:
                ordered = order(place.output, image=assembled(group), conditions=conditions)
                rebuilt = launch(ordered, conditions, place, baseline)
                if Means.WARM_STORE in conditions.means and rebuilt.folder and not _all_taken(rebuilt):
                    # The store was cold, and now it is warm.
                    rebuilt = launch(ordered, conditions, place, baseline)
                result = _judge(builder, group, baseline, rebuilt)
            if (
                Means.PODMAN in conditions.means
                and isinstance(result.failed, EngineError)
                and not wanted.vary
            ):
                not_done["podman"] = f"it can't run a step here: {result.failed}"
            else:
                results.append(result)
            if not wanted.keep:
                shutil.rmtree(folder)
        return Checked(
            model=baseline.folder.parent.name,
            request=request,
            baseline=baseline,
            results=tuple(results),
            not_done=not_done,
            golden=_golden(builder, baseline, request),
        )


def _choose(builder: Builder, wanted: Wanted) -> tuple[list[Variation], dict[str, str]]:
    machine = look_around(
        builder.environment,
        Path(wanted.keep).resolve().parent if wanted.keep else builder.store.root,
        OTHER_ID,
    )
    chosen = parse_names(wanted.vary, variations(machine))
    not_done = {variation.name: why for variation in chosen if (why := variation.unavailable(machine))}
    if wanted.vary and not_done:
        raise ConfigurationError(
            "can't be varied on this machine:\n  "
            + "\n  ".join(f"{name}: {why}" for name, why in not_done.items()),
            advice="Without --vary, what can be varied here is.",
        )
    return [variation for variation in chosen if variation.name not in not_done], not_done


@contextlib.contextmanager
def _work(builder: Builder, keep: str) -> Iterator[Path]:
    """Give a folder for everything: the user's, which stays, or one on the store's disk, which is removed."""
    if not keep:
        with builder.store.temporary_folder() as folder:
            yield folder
        return
    folder = Path(keep).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ConfigurationError(f"--keep {keep} is not empty")
    except OSError as error:
        raise ConfigurationError(f"--keep {keep}: {error.strerror}") from error
    yield folder


def _all_taken(rebuilt: Rebuilt) -> bool:
    return all(stage.cached for stage in rebuilt.stages if stage.name != PUBLISHED)


def _judge(builder: Builder, group: Sequence[Variation], baseline: Rebuilt, rebuilt: Rebuilt) -> Result:
    from bertir.place import diffoscope, located

    ran = [stage for stage in rebuilt.stages if stage.name != PUBLISHED]
    difference, failed, report = rebuilt.difference, rebuilt.failed, ""
    if difference:
        difference = located(builder, difference, baseline, rebuilt)
        path = builder.store.root / "logs" / f"check-{difference.stage}-{difference.file}.diffoscope.txt"
        with builder.store.temporary_folder() as scratch:
            report = str(path) if diffoscope(difference, baseline, rebuilt, path, scratch) else ""
    warm = any(Means.WARM_STORE in variation.conditions.means for variation in group)
    if not warm and (taken := [stage.name for stage in ran if stage.cached]):
        failed = failed or BertirError(f"not rebuilt, though the store was empty: {', '.join(taken)}")
    return Result(
        varied=tuple(variation.name for variation in group),
        rebuilt=tuple(stage.name for stage in ran if not stage.cached),
        taken=tuple(stage.name for stage in ran if stage.cached),
        seconds=rebuilt.seconds,
        difference=difference,
        diffoscope=report,
        failed=failed,
        without_effect=() if difference or failed else _without_effect(group, baseline, rebuilt),
        measured_equal=_measured_equal(baseline, rebuilt),
    )


def _without_effect(group: Sequence[Variation], baseline: Rebuilt, rebuilt: Rebuilt) -> tuple[str, ...]:
    """Name what should have been seen otherwise than in the baseline, and was not."""
    return tuple(
        f"{witness} ({rebuilt.observed.get(witness)})"
        for variation in group
        for witness in variation.witnesses
        if baseline.observed.get(witness) == rebuilt.observed.get(witness)
    )


def _measured_equal(baseline: Rebuilt, rebuilt: Rebuilt) -> bool | None:
    pairs = [
        (stage, other)
        for name in MEASURED
        if (stage := baseline.stage(name)) and (other := rebuilt.stage(name))
    ]
    return all(one.files == other.files for one, other in pairs) if pairs else None


def _golden(builder: Builder, baseline: Rebuilt, request: Request) -> Golden | None:
    """Compare the baseline with tests/golden, where that has digests of this very build."""
    if baseline.folder is None:
        return None
    path = builder.layout.root / "tests" / "golden" / f"{baseline.folder.parent.name}.json"
    try:
        published: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if f"{request.variant}/model.xml" not in published:
        return None
    found = {f"{request.variant}/{name}": str(digest) for name, digest in _files(baseline, "convert").items()}
    found |= {f"checkpoint/{name}": str(digest) for name, digest in _files(baseline, "import").items()}
    found |= {"frozen_graph": str(digest) for digest in _files(baseline, "freeze").values()}
    found |= {
        "image": str(digest) for name, digest in _files(baseline, "image").items() if name == "image ID"
    }
    both = sorted(published.keys() & found.keys())
    return Golden(
        file=str(path.relative_to(builder.layout.root)),
        compared=len(both),
        different=tuple(
            f"{name}: published {published[name]}, found {found[name]}"
            for name in both
            if published[name] != found[name]
        ),
    )


def _files(baseline: Rebuilt, stage: str) -> Mapping[str, Any]:
    found = baseline.stage(stage)
    return found.files if found else {}
