"""Makes every Python process of the tests start faster. Python imports it because its folder is on ``PYTHONPATH``.

``jsonschema`` takes 1.6 of the 3.5 s that ``import airflow`` needs, to build a grammar for the format ``iri``. It does
without if the package is missing, as in an installation without Jupyter. Garbage collections take a fifth of the rest.
"""

import gc
import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
gc.set_threshold(20_000, 20, 20)
