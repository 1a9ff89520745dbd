"""What is installed here, which body models, regressors and data sets there are, and what is missing.

    python tools/doctor.py
    python tools/doctor.py root=FOLDER root=ANOTHER

Files are recognised by what is in them, whatever their names; no pickle is executed. Ends with status 0 if the
default job (tools/predict_mesh.py with the open body and the shipped weights) can run.
"""

import itertools
import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # it must run where nothing is installed yet
from mesh_head.doctor import can_run_the_default_job, examine
from mesh_head.file_recognition import KINDS, find_files

_OK, _WRONG, _ABSENT = "[ok]", "[!!]", "[  ]"
_WIDTHS = (38, 62, 70)


def main(roots: list[Path]) -> int:
    findings = find_files(roots)
    checks = examine()
    _table("Installed", ("what", "found", "for"))
    for check in checks:
        mark = _OK if check.is_usable else _WRONG if check.is_needed else _ABSENT
        unlocks = check.unlocks if check.is_usable else f"to get it: {check.remedy}"
        _row(f"{mark} {check.name}", check.state, unlocks)

    _table("Files" + "".join(f" in {root}" for root in roots), ("what", "where", "unlocks"))
    for name, kind in KINDS.items():
        found = [finding for finding in findings if finding.kind == name]
        usable = [finding for finding in found if not finding.problem]
        if usable:
            details = sorted({finding.detail for finding in usable} - {""})
            paths = ", ".join(str(finding.path) for finding in usable[:4])
            more = f" and {len(usable) - 4:,} more" if len(usable) > 4 else ""
            known = f" ({'; '.join(details[:4])})" if details else ""
            _row(f"{_OK} {kind.title}", f"{paths}{more}{known}", kind.unlocks)
        damaged = [finding for finding in found if finding.problem]
        for finding in damaged[:4]:
            _row(f"{_WRONG} {kind.title}", str(finding.path), finding.problem)
        if damaged[4:]:
            _row(f"{_WRONG} {kind.title}", f"{len(damaged) - 4:,} more", "")
        if not found and name not in ("archive", "unreadable", "extra_regressor"):
            _row(f"{_ABSENT} {kind.title}", "not found", f"{kind.unlocks}; to get it: {kind.where_to_get}")
    if not roots:
        print("  (no folder was searched: name some with root=FOLDER)")
    print(f"\nThe default job {'can' if can_run_the_default_job(checks) else 'cannot'} run here.")
    return int(not can_run_the_default_job(checks))


def _table(title: str, columns: tuple[str, str, str]) -> None:
    print(f"\n{title}")
    _row(*columns)
    print("  " + "  ".join("-" * width for width in _WIDTHS))


def _row(*cells: str) -> None:
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, _WIDTHS, strict=True)]
    for parts in itertools.zip_longest(*wrapped, fillvalue=""):
        padded = [f"{part:{width}}" for part, width in zip(parts, _WIDTHS, strict=True)]
        print(f"  {'  '.join(padded)}".rstrip())


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print((__doc__ or "").strip())
        sys.exit(0)
    wrong = [argument for argument in arguments if not argument.startswith("root=")]
    try:
        if wrong:
            raise ValueError(f"{wrong[0]!r} is not understood; the one thing to say is root=FOLDER.")
        sys.exit(main([Path(argument.removeprefix("root=")) for argument in arguments]))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
