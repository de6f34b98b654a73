"""What computes a network: one file per backend, and one that chooses."""

from medseg.inference.backends.member import Member

__all__ = ["Member"]
