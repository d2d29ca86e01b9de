"""Python code of Oteo's contract, generated from ``protos/oteo`` by ``make protos``; never edited, never committed."""
