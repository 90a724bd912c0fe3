"""The services of an embedded stack: their commands, configuration, ports and tests of readiness."""
