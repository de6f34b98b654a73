"""What differs between Linux, macOS and Windows; nothing else in medseg asks where it runs.

Elsewhere, modules and functions that one of them lacks are not used, and a test sees to that. The
one exception is ``medseg.io.dicom.decoder``, a script that imports nothing of medseg.
"""

from __future__ import annotations

import os

IS_WINDOWS = os.name == "nt"
