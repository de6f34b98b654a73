"""The app as MONAI Label finds it: it runs this file and takes the app class out of it."""

from medseg.label_server.shims import install_shims

install_shims()

from medseg.label_server.app import LabelApp  # noqa: E402

__all__ = ["LabelApp"]
