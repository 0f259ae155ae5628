"""pycnn beside other libraries: the same nets, weights and inputs, taking turns in one run.

One file a peer (`peer_*.py`); `run.py` is what happens to a case: start, check that results agree, race, report.
"""
