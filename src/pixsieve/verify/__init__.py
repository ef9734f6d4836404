"""The independent reader of exported datasets: it uses none of the code that writes them.

Only the worker processes are the engine's.
``tars`` and ``sidecars`` read, ``samples`` and ``shard`` compare the two, ``manifest`` and
``accounts`` check the dataset as a whole, ``findings`` has the rules and the report, and ``run``
puts it all together.
"""

from pixsieve.verify.findings import RULES, Checked, Finding, VerifyReport
from pixsieve.verify.run import verify

__all__ = ["RULES", "Checked", "Finding", "VerifyReport", "verify"]
