"""`invoke check`: a baseline and its rebuilds, each from a store that holds materials alone, compared stage by stage."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bertir import materials, pipeline
from bertir.checked import Checked, Result
from bertir.compare import MEASURED, PUBLISHED
from bertir.engine import connect
from bertir.errors import BertirError, ConfigurationError, EngineError
from bertir.golden import compare_with_golden
from bertir.launch import launch
from bertir.machine import look_around
from bertir.place import diffoscope, located
from bertir.prepare import Supplies, prepared
from bertir.rebuild import Order
from bertir.variations import OTHER_ID, variations
from bertir.vary import Conditions, Means, combine, parse_names, rebuilds

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bertir.builder import Builder
    from bertir.launch import Rebuilt
    from bertir.local_checkpoint import Options
    from bertir.report import Request
    from bertir.vary import Variation
    from bertir.wanted import Wanted

MOST_TIMES = 1000


def check(builder: Builder, request: Request, checkpoint: Options | None, wanted: Wanted) -> Checked:
    """Build a baseline, rebuild it under variations, and compare.

    Raises:
        ConfigurationError: a variation that was asked for by name can't be done here.
        BertirError: the baseline can't be built.
    """
    pipeline.check(request)
    if not 1 <= wanted.times <= MOST_TIMES:
        raise ConfigurationError(f"--times must be from 1 to {MOST_TIMES}, and is {wanted.times}")
    chosen, not_done = _choose(builder, wanted)
    groups = rebuilds(chosen, each=wanted.each)
    model = None if checkpoint else request.model
    if wanted.skip_image:
        builder.load_image()  # while the packages that it is made of can be had
    named = materials.fetch_materials(builder, model, request.task_data, image=not wanted.skip_image)
    supplies = Supplies(layout=builder.layout, store=builder.store, materials=named.values())
    with _work(builder, wanted.keep) as work:
        checker = _Checker(
            builder=builder,
            request=request,
            checkpoint=checkpoint,
            wanted=wanted,
            supplies=supplies,
            work=work,
        )
        baseline, published = checker.baseline(image=any(map(checker.assembles_image, groups)))
        results = []
        for number, group in enumerate(group for group in groups for _ in range(wanted.times)):
            result = checker.rebuild(group, baseline, published, work / f"rebuild-{number + 1}")
            builder.progress.say("check", f"{result.verdict}, {result.seconds:.1f} s")
            if isinstance(result.failed, EngineError) and result.varied == ("podman",) and not wanted.vary:
                not_done["podman"] = f"it can't run a step here: {result.failed}"
            else:
                results.append(result)
        return Checked(
            model=published.parent.name,
            request=request,
            baseline=baseline,
            results=tuple(results),
            not_done=not_done,
            golden=compare_with_golden(builder.layout.root, baseline, request),
        )


@dataclass(frozen=True, kw_only=True)
class _Checker:
    """What the baseline and every rebuild have in common."""

    builder: Builder
    request: Request
    checkpoint: Options | None
    wanted: Wanted
    supplies: Supplies
    work: Path

    def assembles_image(self, group: Sequence[Variation]) -> bool:
        if self.wanted.skip_image:
            return False
        return not group or any(variation.touches_image for variation in group)

    def order(self, output: Path, conditions: Conditions, *, image: bool) -> Order:
        return Order(
            request=self.request,
            checkpoint=self.checkpoint,
            output=str(output),
            image=image,
            surroundings=conditions.surroundings,
        )

    def baseline(self, *, image: bool) -> tuple[Rebuilt, Path]:
        """Build as the machine has it; give the folder that was published too."""
        self.builder.progress.say("check", "building the baseline from materials alone")
        plain = Conditions()
        with prepared(self.supplies, plain, self.work / "baseline") as place:
            built = launch(self.order(place.output, plain, image=image), plain, place, None)
        if built.failed:
            raise built.failed
        if built.folder is None:
            raise BertirError("the baseline ended well, and yet published nothing")
        return built, built.folder

    def rebuild(self, group: Sequence[Variation], baseline: Rebuilt, published: Path, folder: Path) -> Result:
        """Rebuild under all variations of `group`; what goes wrong is part of the result."""
        names = tuple(variation.name for variation in group)
        self.builder.progress.say("check", f"rebuilding: {', '.join(names) or 'nothing varied'}")
        conditions = combine(group)
        older = (published.relative_to(baseline.place.output), published)
        try:
            with prepared(replace(self.supplies, published=older), conditions, folder) as place:
                order = self.order(place.output, conditions, image=self.assembles_image(group))
                rebuilt = launch(order, conditions, place, baseline)
                if Means.WARM_STORE in conditions.means and rebuilt.folder and not _all_taken(rebuilt):
                    # The store was cold, and now it is warm.
                    rebuilt = launch(order, conditions, place, baseline)
                if rebuilt.failed and Means.WARM_STORE not in conditions.means:
                    self._remove_containers(place.store)
                return _judge(self.builder, group, baseline, rebuilt)
        # A means of the variation can't be had; the other rebuilds may be done all the same.
        except BertirError as error:
            return Result(varied=names, rebuilt=(), taken=(), seconds=0.0, failed=error)
        except OSError as error:
            failed = BertirError(f"{error.filename}: {error.strerror}")
            return Result(varied=names, rebuilt=(), taken=(), seconds=0.0, failed=failed)
        finally:
            if not self.wanted.keep:
                shutil.rmtree(folder, ignore_errors=True)

    def _remove_containers(self, store: Path) -> None:
        """Remove what a rebuild left that was killed: nobody will open its store again, and clean up then."""
        with contextlib.suppress(EngineError), connect(self.builder.environment, folder=store) as engine:
            engine.remove_abandoned(lambda _: True)


def _choose(builder: Builder, wanted: Wanted) -> tuple[list[Variation], dict[str, str]]:
    machine = look_around(
        builder.environment,
        Path(os.path.realpath(wanted.keep)).parent if wanted.keep else builder.store.root,
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
    folder = Path(os.path.realpath(keep))  # Path.resolve raises at links that lead in a circle
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
    ran = [stage for stage in rebuilt.stages if stage.name != PUBLISHED]
    difference, failed, report = rebuilt.difference, rebuilt.failed, ""
    if difference:
        with contextlib.suppress(
            BertirError
        ):  # that it differs is known, whether or not somebody can say where
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
