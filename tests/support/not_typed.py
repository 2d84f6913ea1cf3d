"""Commands of the pages that tests/integration/test_documented_commands.py doesn't type: each with its reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_VERIFIED = "tests/e2e/test_main_job.py::test_what_was_published_is_signed_verified_and_rebuilt_from_its_provenance_alone"
_BUNDLED = "tests/e2e/test_main_job.py::test_a_bundle_builds_the_same_ir_on_a_machine_with_no_network"
_CHECKED = (
    "tests/integration/test_check.py::test_a_sound_build_is_the_same_under_variations_and_every_step_ran"
)
_FUZZED = "tests/fuzz/test_coverage.py::test_no_archive_ends_in_anything_but_an_error_of_bertirs"
_INSTALLED = "tests/integration/test_installed.py::test_an_installed_bertir_builds_the_same_as_the_checkout_from_outside_of_one"
_IMAGE_PUSHED = (
    "tests/integration/test_registry.py::test_the_locked_image_goes_there_and_comes_back_into_an_empty_store"
)
_MODEL_PUSHED = "tests/unit/test_transfer.py::test_the_last_line_of_a_push_is_what_is_pulled"
_LOCKED = (
    "tests/integration/test_weekly_jobs.py"
    "::test_the_weekly_lock_pushes_locks_that_are_fresh_and_nothing_else_or_says_that_nothing_is_newer"
)
_PUBLISHED = "dist/all-minilm-l6-v2/reshapable-fp16"

# A command, and the test that runs it, or the same with other figures: it takes long, and once is enough.
ELSEWHERE: Mapping[str, str] = {
    f"invoke verify {_PUBLISHED} --rebuild": _VERIFIED,
    ".venv/bin/invoke verify received --rebuild": _VERIFIED,
    "invoke verify received --rebuild": _VERIFIED,
    "invoke verify dist/my-bert/reshapable-fp16 --rebuild --checkpoint my-bert": _VERIFIED,
    "invoke fetch --bundle materials.tar": _BUNDLED,
    "make all BUNDLE=materials.tar": _BUNDLED,
    "invoke check": _CHECKED,
    "invoke check --each": _CHECKED,
    "invoke check --vary umask,clock": "tests/integration/test_check.py::test_a_clock_that_leaks_into_a_step_is_caught_and_named",
    "invoke lock": _LOCKED,
    "invoke lock --only job": _LOCKED,
    "invoke audit --online": "tests/unit/test_audit.py::test_a_service_that_knows_more_than_is_answered_fails_the_audit",
    "invoke audit --database advisory-database": "tests/unit/test_audit.py::test_a_database_is_read_and_written_down_with_its_day",
    "invoke build-ir --recipe meta-graph": "tests/integration/test_recipes.py::test_golden_digests_of_the_recipe_meta_graph",
    "invoke build-matrix --models bert-base-cased,bert-base-uncased --precisions fp16,fp32 --heads pooled,sequence --jobs 2": "tests/integration/test_matrix.py::test_steps_that_several_builds_share_run_once",
    "python3 -m venv ~/bertir": _INSTALLED,
    "~/bertir/bin/pip install --require-hashes -r requirements/build.lock": _INSTALLED,
    "~/bertir/bin/pip install package/bertir-0.1.0-py3-none-any.whl": _INSTALLED,
    "~/bertir/bin/bertir build-ir": _INSTALLED,
    "invoke sbom --job --output job.cdx.json": "tests/integration/test_sbom.py::test_the_job_images_document_is_valid_and_lists_what_that_has_over_the_image",
    "invoke sbom --format text": "tests/unit/test_sbom.py::test_as_text_each_component_has_a_line_with_its_licences",
    "invoke push HOST/NAME:TAG": _IMAGE_PUSHED,
    "invoke push HOST/NAME:TAG --job": "tests/integration/test_registry.py::test_the_image_for_jobs_is_sent_as_what_it_has_over_the_steps_image",
    "invoke push HOST/NAME:TAG; invoke pull HOST/NAME:TAG": _IMAGE_PUSHED,
    "invoke pull HOST/NAME@sha256:…": _IMAGE_PUSHED,
    "invoke push HOST/NAME:TAG --folder dist/MODEL/VARIANT": _MODEL_PUSHED,
    "invoke pull HOST/NAME@sha256:… --folder models/bert": _MODEL_PUSHED,
    "make docs": "tests/unit/test_documentation.py::test_every_page_is_on_the_site",
    "bertir build-<Tab>": "tests/unit/test_completion.py::test_a_task_is_completed",
    "bertir build-ir --prec<Tab>": "tests/unit/test_completion.py::test_an_option_of_the_task_is_completed",
    ".venv/bin/python tests/fuzz/target_deb.py -max_total_time=3600 corpus": _FUZZED,
    ".venv/bin/python tests/fuzz/target_deb.py crash-1": _FUZZED,
}

# A command, and why no test can run it.
NEVER: Mapping[str, str] = {
    "make test": "it is what runs these tests",
    ".venv/bin/python -m pytest tests/unit": "it is what runs some of these tests",
    "make lint": "CI runs it before these tests (.ci/run); half a minute of two processors",
    "FUZZ_EXAMPLES=100000 .venv/bin/pytest tests/fuzz/test_properties.py": "hours, by intent; the tests do it with fewer",
    "git clone https://github.com/pypa/advisory-database": "no Git host is reached from where these tests run",
    "mkdir layers && docker save $reference | tar -x -C layers": "Docker's own and tar's, and a gigabyte",
}
