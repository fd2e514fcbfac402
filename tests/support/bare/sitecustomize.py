"""Has each Python that a test starts run without what Linux has; see `bare_platform`."""

import bare_platform  # noqa: F401
