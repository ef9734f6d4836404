"""Making a sound dataset of a faulty one, of whatever make; the faulty one is only read.

``survey`` finds out what lies in the folder, ``stages`` decide what is damaged and where the rest
belongs, ``run`` puts these into a pipeline, and ``account`` tells what became of every sample.
"""

from pixsieve.repair.account import RepairReport
from pixsieve.repair.run import repair

__all__ = ["RepairReport", "repair"]
