"""Records the results of native Airflow: ``python -m tests.compatibility.oracle.record [name ...]``."""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from typing import Any

from tests.compatibility.oracle.catalog import CASES, RECORDED, SUITES
from tests.compatibility.oracle.compare import compare
from tests.compatibility.oracle.native import run_natively


def main() -> None:
    """Run the chosen DAG files natively and write, or check, their recordings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="name", help=f"one of: {' '.join([*SUITES, *CASES])}; all if omitted"
    )
    parser.add_argument("--check", action="store_true", help="compare with the recordings, write nothing")
    parser.add_argument("--keep", action="store_true", help="keep native Airflow's folder")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - {*SUITES, *CASES}:
        parser.error(f"no such case: {' '.join(sorted(unknown))}")
    cases = [case for name in chosen.names or SUITES for case in SUITES.get(name) or [CASES[name]]]
    differing = broken = 0
    for case, results in run_natively(cases, keep=chosen.keep):
        if errors := {dag_id: result["error"] for dag_id, result in results.items() if "error" in result}:
            print(f"{case.name} isn't recorded: {errors}")
            broken += 1
            continue
        if case.recording.exists():
            differences = compare(case.recorded(), results)
            differing += bool(differences)
            print(
                *[f"{case.name}: {line}" for line in differences], sep="\n", end="\n" if differences else ""
            )
        if not chosen.check:
            RECORDED.mkdir(exist_ok=True)
            case.recording.write_text(dump(results), encoding="utf-8")
    raise SystemExit(bool(broken or (chosen.check and differing)))


def dump(dags: dict[str, Any]) -> str:
    """Return results as JSON, with a separate line for each task instance."""
    lines = ["{", f' "airflow": "{version("apache-airflow-core")}",', ' "dags": {']
    for dag_id, result in dags.items():
        lines.append(f"  {_json(dag_id)}: {{")
        for part, value in result.items():
            if isinstance(value, dict) and not all(isinstance(item, str) for item in value.values()):
                lines.append(f"   {_json(part)}: {{")
                lines += [f"    {_json(key)}: {_json(item)}," for key, item in sorted(value.items())]
                lines[-1] = lines[-1].rstrip(",")
                lines.append("   },")
            else:
                lines.append(f"   {_json(part)}: {_json(value)},")
        lines[-1] = lines[-1].rstrip(",")
        lines.append("  },")
    lines[-1] = lines[-1].rstrip(",")
    lines += [" }", "}", ""]
    return "\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
