"""Write explanations of growth as text and HTML: the path from allocation to holder, the cure, what is missing."""

from collections.abc import Sequence
from html import escape
from typing import Any

from holdwater.detectors.verdict import COUNTED
from holdwater.units import format_rate

REFERENCE = "as reported at"
UNEXPLAINED = "not explained yet"


def explanation_in_words(finding: dict[str, Any]) -> list[str]:
    """The explanation of a finding, a line each; none if there is none.

    Args:
        finding: From the JSON verdict.
    """
    if not _is_looked_into(finding):
        return []
    chain = finding["chain"]
    lines = [*chain[:1], *(f"→ {link}" for link in chain[1:])]
    lines.append(_share(finding))
    if not _is_answered(finding):
        lines += [f"    {_line(finding, site)}" for site in finding["sites"]]
    known = finding.get("known")
    if known is not None:
        lines.append(f"known as {known['name']}: {known['title']}")
        lines += [f"    {line}" for line in known["cure"].splitlines()]
        lines.append(f"{REFERENCE} {known['reference']}")
    return lines + [f"not examined: {reason}" for reason in finding.get("missing", ())]


def explanations_in_words(findings: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The explanations of several findings, without repeating what an earlier one says.

    Args:
        findings: From the JSON verdict.
    """
    said: dict[tuple[str, ...], str] = {}
    found = []
    for finding in findings:
        lines = explanation_in_words(finding)
        chain = tuple(finding.get("chain", ())[:3])
        if chain and chain in said:
            lines = [f"it follows from the same line as {said[chain]} above"]
        elif chain:
            said[chain] = finding["component"]
        found.append(lines)
    return found


def explanations_as_html(summary: dict[str, Any] | None) -> str:
    """A section with the explanation of each finding that has one; empty if none has."""
    findings = [] if summary is None else [one for one in summary["findings"] if _is_looked_into(one)]
    if not findings:
        return ""
    return f"<section><h2>Explanation</h2>{''.join(map(_as_html, findings))}</section>"


def _as_html(finding: dict[str, Any]) -> str:
    """One finding: the chain, the source lines with their growth, the cure."""
    links = "".join(f"<li>{escape(link)}</li>" for link in finding["chain"])
    rows = "".join(
        f"<tr><td>{escape(site['role'])}</td><td>{escape(_where(site))}</td>"
        f"<td><code>{escape(site.get('text', ''))}</code></td><td>{escape(_holder(site))}</td>"
        f"<td class='number'>{escape(_size(finding, site))}</td><td>{escape(_known_by(site))}</td></tr>"
        for site in finding["sites"]
    )
    head = (
        "<tr><th>role</th><th>where</th><th>the line</th><th>name</th><th>growth</th><th>how it is known</th></tr>"
        if rows
        else ""
    )
    missing = "".join(f"<p class='note'>Not examined: {escape(reason)}.</p>" for reason in finding["missing"])
    return (
        f"<h3>{escape(finding['component'])}: {escape(finding['verdict'])}</h3><ol class='chain'>{links}</ol>"
        f"<p class='note'>{escape(_share(finding))}.</p>"
        f"<div class='scroll'><table>{head}{rows}</table></div>{_cure_as_html(finding.get('known'))}{missing}"
    )


def _cure_as_html(known: dict[str, Any] | None) -> str:
    """The known cause and its cure."""
    if known is None:
        return ""
    return (
        f"<p><b>{escape(known['title'])}.</b> {escape(known['why'])}</p><pre>{escape(known['cure'])}</pre>"
        f"<p class='note'>{escape(known['name'])}, {REFERENCE} "
        f"<a href='{escape(known['reference'])}'>{escape(known['reference'])}</a></p>"
    )


def _is_looked_into(finding: dict[str, Any]) -> bool:
    """Whether anything is known of a finding's cause."""
    return bool(finding.get("chain") or (finding.get("sites") and "chain" in finding))


def _is_answered(finding: dict[str, Any]) -> bool:
    """Whether enough of the growth is accounted for to report it as the cause."""
    return bool(finding.get("answer", "explained") == "explained")


def _share(finding: dict[str, Any]) -> str:
    """How much of the growth the sites account for."""
    share = finding["explained"]
    if not _is_answered(finding):
        return (
            f"not explained yet: so far these lines account for {share:.0%}" if finding["sites"] else UNEXPLAINED
        )
    left = "" if share >= 0.995 else f"; {1 - share:.0%} is unexplained"
    return f"this explains {share:.0%} of the growth{left}"


def _line(finding: dict[str, Any], site: dict[str, Any]) -> str:
    """A line that accounts for a part of the growth."""
    return f"{_where(site)}: {site['text']} ({_size(finding, site)}, {_known_by(site)})"


def _where(site: dict[str, Any]) -> str:
    """A site as a file's name and line."""
    return f"{site['file'].rpartition('/')[2]}:{site['line']}"


def _known_by(site: dict[str, Any]) -> str:
    """How a site is known."""
    if site.get("known_by", "seen") == "seen":
        return "seen"
    return "read in the source; it ran" if site.get("ran") else "read in the source; not seen to run"


def _holder(site: dict[str, Any]) -> str:
    """What holds, with its kind."""
    if site["role"] != "held":
        return ""
    return f"{site['name']} ({site['kind']})"


def _size(finding: dict[str, Any], site: dict[str, Any]) -> str:
    """What a site grows by."""
    if finding["component"] in COUNTED:
        return f"{site['bytes_per_step']:.3g} a step"
    return format_rate(site["bytes_per_step"])
