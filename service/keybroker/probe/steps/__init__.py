"""The steps of a run. Each answers questions of findings.QUESTIONS; where it proves nothing it says so."""
