from __future__ import annotations

import gc
import sys

import pytest

from temporal_airflow_nb.tasks.preload import defer_iri_grammar, without_garbage_collection

GRAMMAR = "rfc3987_syntax"


def test_the_iri_grammar_is_built_when_it_is_first_used(monkeypatch):
    monkeypatch.delitem(sys.modules, GRAMMAR, raising=False)
    monkeypatch.delitem(sys.modules, f"{GRAMMAR}.syntax_helpers", raising=False)
    defer_iri_grammar()
    deferred = sys.modules[GRAMMAR]
    assert f"{GRAMMAR}.syntax_helpers" not in sys.modules
    assert deferred.is_valid_syntax("iri", "http://example.org/straße")
    assert not deferred.is_valid_syntax("iri", "not an IRI")
    assert f"{GRAMMAR}.syntax_helpers" in sys.modules


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_as_before_afterwards(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with without_garbage_collection():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
