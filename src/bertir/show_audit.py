"""What `invoke audit` prints: text for people, JSON for machines, Markdown for docs/vulnerabilities.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bertir.show import table

if TYPE_CHECKING:
    from bertir.audit import Audit, Finding

_PLACES = {
    "image": "the image",
    "host": "bertir's own environment",
    "development": "the development environment",
    "serving": "the environment of examples/serving",
}
_VERDICTS = {
    "not-reached": "the code in question isn't called by any step",
    "contained": "a step may reach it, and the container is what holds",
}


def audit_facts(audit: Audit) -> dict[str, Any]:
    examined = audit.examined
    return {
        "as_of": examined.date,
        "database": {"name": examined.name, "commit": examined.commit, "records": examined.records},
        "pins": {place: len(pins) for place, pins in examined.pins.items()},
        "advisories": [
            {
                "id": finding.advisory.id,
                "aliases": list(finding.advisory.aliases),
                "place": finding.place,
                "package": finding.package,
                "version": finding.version,
                "what": finding.advisory.what,
                "verdict": finding.advisory.verdict,
                "answer": finding.advisory.answer,
                "in_database": finding.advisory.recorded,
            }
            for finding in audit.findings
        ],
    }


def audit_text(audit: Audit) -> str:
    rows = [
        (finding.place, f"{finding.package} {finding.version}", finding.advisory.id, finding.advisory.verdict)
        for finding in audit.findings
    ]
    lines = [table([("where", "package", "advisory", "verdict"), *rows])] if rows else []
    return "\n".join([*lines, _as_of(audit), "The answers: docs/vulnerabilities.md"])


def _as_of(audit: Audit) -> str:
    examined = audit.examined
    pins = sum(len(pins) for pins in examined.pins.values())
    return (
        f"{len(audit.findings)} known as of {examined.date}, all answered: {pins} pins, held against"
        f" {examined.records} records of {examined.name} at {examined.commit[:12]}. What became known since isn't in it."
    )


def audit_markdown(audit: Audit) -> str:
    lines = [
        "<!-- Made by `invoke audit --format markdown` from security/advisories.toml; don't edit. -->",
        "# Known advisories about pinned Python packages",
        "",
        _as_of(audit),
        "",
        "Debian's packages, and what wheels have linked into them, are in [security.md](security.md).",
    ]
    for place, name in _PLACES.items():
        lines += ["", f"## In {name}", ""]
        lines += [_entry(one) for one in audit.findings if one.place == place] or ["None that is known."]
    return "\n".join(lines)


def _entry(finding: Finding) -> str:
    advisory = finding.advisory
    source = "" if advisory.recorded else " Found by hand; the database doesn't name this version."
    return (
        f"- **{advisory.id}** ({', '.join(advisory.aliases)}), {finding.package} {finding.version}: {advisory.what}\n"
        f"  *{advisory.verdict}*: {_VERDICTS[advisory.verdict]}. {advisory.answer}{source}"
    )
